package queue

import (
	"encoding/base64"
	"encoding/xml"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// Namespace is that of the answers of the query protocol.
const Namespace = "http://queue.amazonaws.com/doc/2012-11-05/"

// The query protocol numbers the members of a list from 1, without gaps. No list is longer than this.
const listed = 100

// readForm reads a request of the query protocol.
func readForm(f url.Values, in *input) error {
	for name, p := range map[string]*string{
		"QueueName": &in.QueueName, "QueueUrl": &in.QueueUrl, "QueueOwnerAWSAccountId": &in.QueueOwnerAWSAccountId, "QueueNamePrefix": &in.QueueNamePrefix, "NextToken": &in.NextToken,
		"Label": &in.Label, "ReceiveRequestAttemptId": &in.ReceiveRequestAttemptId, "ReceiptHandle": &in.ReceiptHandle, "SourceArn": &in.SourceArn, "DestinationArn": &in.DestinationArn, "TaskHandle": &in.TaskHandle,
	} {
		*p = f.Get(name)
	}
	for name, p := range map[string]**int{
		"MaxResults": &in.MaxResults, "MaxNumberOfMessages": &in.MaxNumberOfMessages, "VisibilityTimeout": &in.VisibilityTimeout, "WaitTimeSeconds": &in.WaitTimeSeconds,
		"MaxNumberOfMessagesPerSecond": &in.MaxNumberOfMessagesPerSecond,
	} {
		if err := number(f, name, p); err != nil {
			return err
		}
	}
	for name, p := range map[string]*[]string{
		"AttributeName": &in.AttributeNames, "MessageSystemAttributeName": &in.MessageSystemAttributeNames, "MessageAttributeName": &in.MessageAttributeNames,
		"TagKey": &in.TagKeys, "AWSAccountId": &in.AWSAccountIds, "ActionName": &in.Actions,
	} {
		*p = append(*p, f[name]...) // a list of one may go without its number
		for i := 1; i <= listed && f.Has(name+"."+strconv.Itoa(i)); i++ {
			*p = append(*p, f.Get(name+"."+strconv.Itoa(i)))
		}
	}
	in.Attributes, in.Tags = pairs(f, "Attribute", "Name"), pairs(f, "Tag", "Key")
	if err := readMessage(f, "", &in.message); err != nil {
		return err
	}
	for _, kind := range []string{"SendMessageBatchRequestEntry", "DeleteMessageBatchRequestEntry", "ChangeMessageVisibilityBatchRequestEntry"} {
		for i := 1; i <= listed; i++ {
			at := kind + "." + strconv.Itoa(i) + "."
			if !f.Has(at + "Id") {
				break
			}
			e := entry{Id: f.Get(at + "Id"), ReceiptHandle: f.Get(at + "ReceiptHandle")}
			if err := number(f, at+"VisibilityTimeout", &e.VisibilityTimeout); err != nil {
				return err
			}
			if err := readMessage(f, at, &e.message); err != nil {
				return err
			}
			in.Entries = append(in.Entries, e)
		}
	}
	return nil
}

func number(f url.Values, name string, p **int) error {
	if !f.Has(name) {
		return nil
	}
	n, err := strconv.Atoi(f.Get(name))
	if err != nil {
		return invalid("Value %s for parameter %s is invalid. Reason: Must be an integer.", f.Get(name), name)
	}
	*p = &n
	return nil
}

func pairs(f url.Values, list, key string) map[string]string {
	var out map[string]string
	for i := range listed + 1 {
		at := list + "." + strconv.Itoa(i) + "."
		if i == 0 { // a list of one may go without its number
			at = list + "."
		}
		if !f.Has(at + key) {
			if i == 0 {
				continue
			}
			break
		}
		if out == nil {
			out = map[string]string{}
		}
		out[f.Get(at+key)] = f.Get(at + "Value")
	}
	return out
}

func readMessage(f url.Values, at string, m *message) error {
	if f.Has(at + "MessageBody") {
		s := f.Get(at + "MessageBody")
		m.MessageBody = &s
	}
	for name, p := range map[string]**string{"MessageDeduplicationId": &m.MessageDeduplicationId, "MessageGroupId": &m.MessageGroupId} {
		if f.Has(at + name) {
			s := f.Get(at + name)
			*p = &s
		}
	}
	if err := number(f, at+"DelaySeconds", &m.DelaySeconds); err != nil {
		return err
	}
	var err error
	if m.MessageAttributes, err = readAttributes(f, at+"MessageAttribute."); err != nil {
		return err
	}
	m.MessageSystemAttributes, err = readAttributes(f, at+"MessageSystemAttribute.")
	return err
}

func readAttributes(f url.Values, at string) (map[string]attribute, error) {
	var out map[string]attribute
	for i := 1; i <= listed; i++ {
		one := at + strconv.Itoa(i) + "."
		if !f.Has(one + "Name") {
			break
		}
		a := attribute{DataType: f.Get(one + "Value.DataType")}
		if f.Has(one + "Value.StringValue") {
			s := f.Get(one + "Value.StringValue")
			a.StringValue = &s
		}
		if f.Has(one + "Value.BinaryValue") {
			b, err := base64.StdEncoding.DecodeString(f.Get(one + "Value.BinaryValue"))
			if err != nil {
				return nil, invalid("The binary value of message attribute '%s' is not in base64.", f.Get(one+"Name"))
			}
			a.BinaryValue = b
		}
		if out == nil {
			out = map[string]attribute{}
		}
		out[f.Get(one+"Name")] = a
	}
	return out, nil
}

// xmlNames are the elements that the members of lists and maps have in the query protocol.
var xmlNames = map[string]string{
	"QueueUrls": "QueueUrl", "queueUrls": "QueueUrl", "Attributes": "Attribute", "Tags": "Tag", "Messages": "Message", "MessageAttributes": "MessageAttribute", "Failed": "BatchResultErrorEntry", "Results": "ListMessageMoveTasksResultEntry",
}

// writeXML writes an answer of the query protocol.
func writeXML(operation string, out any, id string) []byte {
	var b strings.Builder
	b.WriteString(xml.Header + "<" + operation + `Response xmlns="` + Namespace + `">`)
	if m, ok := out.(map[string]any); ok {
		b.WriteString("<" + operation + "Result>")
		writeMembers(&b, operation, m)
		b.WriteString("</" + operation + "Result>")
	}
	b.WriteString("<ResponseMetadata>")
	element(&b, "RequestId", id)
	b.WriteString("</ResponseMetadata></" + operation + "Response>")
	return []byte(b.String())
}

func writeMembers(b *strings.Builder, operation string, m map[string]any) {
	for _, k := range slices.Sorted(maps.Keys(m)) {
		name := xmlNames[k]
		if k == "Successful" {
			name = operation + "ResultEntry"
		}
		switch v := m[k].(type) {
		case []string:
			for _, s := range v {
				element(b, name, s)
			}
		case []map[string]any:
			for _, x := range v {
				b.WriteString("<" + name + ">")
				writeMembers(b, operation, x)
				b.WriteString("</" + name + ">")
			}
		case map[string]string:
			key := "Name"
			if k == "Tags" {
				key = "Key"
			}
			for _, n := range slices.Sorted(maps.Keys(v)) {
				b.WriteString("<" + name + ">")
				element(b, key, n)
				element(b, "Value", v[n])
				b.WriteString("</" + name + ">")
			}
		case map[string]attribute:
			for _, n := range slices.Sorted(maps.Keys(v)) {
				b.WriteString("<" + name + ">")
				element(b, "Name", n)
				b.WriteString("<Value>")
				if a := v[n]; a.StringValue != nil {
					element(b, "StringValue", *a.StringValue)
				} else {
					element(b, "BinaryValue", base64.StdEncoding.EncodeToString(a.BinaryValue))
				}
				element(b, "DataType", v[n].DataType)
				b.WriteString("</Value></" + name + ">")
			}
		default:
			element(b, k, fmt.Sprint(v))
		}
	}
}

func element(b *strings.Builder, name, text string) {
	b.WriteString("<" + name + ">")
	xml.EscapeText(b, []byte(text))
	b.WriteString("</" + name + ">")
}
