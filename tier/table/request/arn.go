package request

import "strings"

// isTableARN says whether s names a table by its ARN: arn:aws:dynamodb:REGION:ACCOUNT:table/NAME.
func isTableARN(s string) bool {
	_, _, name, rest, ok := splitARN(s)
	return ok && rest == "" && len(name) >= 3 && len(name) <= 255
}

// splitARN takes the ARN of a table, or of what belongs to one, apart: rest is what stands behind the table's
// name, "stream/2026-01-01T00:00:00.000" or "backup/0123".
func splitARN(s string) (region, account, name, rest string, ok bool) {
	if !strings.HasPrefix(s, "arn:") {
		return "", "", "", "", false
	}
	parts := strings.SplitN(s, ":", 6)
	if len(parts) != 6 || parts[2] != "dynamodb" || parts[3] == "" || !digits(parts[4]) {
		return "", "", "", "", false
	}
	resource, ok := strings.CutPrefix(parts[5], "table/")
	if !ok {
		return "", "", "", "", false
	}
	name, rest, _ = strings.Cut(resource, "/")
	return parts[3], parts[4], name, rest, isName(name)
}

func digits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}

// setTable has the table that a name or an ARN means.
func (in *Input) setTable(s string) {
	in.TableName, in.Account, in.Region = table(s)
}

// setARN has the table that an ARN of it, or of something that belongs to it, means; else it stays "".
func (in *Input) setARN(s string) {
	if region, account, name, _, ok := splitARN(s); ok {
		in.TableName, in.Account, in.Region = name, account, region
	}
}

// table is what a name or an ARN means. What is neither is left as it is.
func table(s string) (name, account, region string) {
	region, account, name, _, ok := splitARN(s)
	if !ok {
		return s, "", ""
	}
	return name, account, region
}
