package attr

import (
	"cmp"
	"math/big"
	"strconv"
	"strings"
)

// A number has up to 38 significant digits and a magnitude from 1E-130 to 9.99…E+125. Its form is the one in
// which DynamoDB answers: plain decimals without an exponent, no zero that says nothing, no sign of zero. So
// two numbers are equal when their forms are.
const (
	maxDigits   = 38
	maxExponent = 125
	minExponent = -130
)

const (
	notNumeric = "The parameter cannot be converted to a numeric value"
	tooPrecise = "Attempting to store more than 38 significant digits in a Number"
	tooLarge   = "Number overflow. Attempting to store a number with magnitude larger than supported range"
	tooSmall   = "Number underflow. Attempting to store a number with magnitude smaller than supported range"
)

// Number reads a number as clients write it, with or without an exponent, and gives its one form. Errors are
// *Error.
func Number(s string) (canonical string, err error) {
	if plain(s) {
		return s, nil
	}
	d, ok := readDecimal(s)
	if !ok {
		e := invalid(notNumeric + ": " + s)
		if s == "" {
			e.Older = notNumeric
		}
		return "", e
	}
	if e := d.check(); e != nil {
		if older := d.olderWords(s); older != e.Message {
			e.Older = older
		}
		return "", e
	}
	return d.String(), nil
}

// olderWords are what Java's BigDecimal makes of a number that is out of range: its exponent has 32 bits, and
// so has the sum from which AWS then tells the magnitude.
func (d decimal) olderWords(s string) string {
	mantissa, exponent := s, ""
	if i := strings.IndexAny(s, "eE"); i >= 0 {
		mantissa, exponent = s[:i], s[i+1:]
	}
	e, err := strconv.ParseInt(cmp.Or(exponent, "0"), 10, 32)
	_, fraction, _ := strings.Cut(mantissa, ".")
	scale := int64(len(fraction)) - e
	if err != nil || scale != int64(int32(scale)) {
		return notNumeric + ": " + s
	}
	digits := strings.TrimLeft(strings.Replace(strings.TrimLeft(mantissa, "+-"), ".", "", 1), "0")
	magnitude := int32(max(len(digits), 1)) - int32(scale)
	switch {
	case magnitude > maxExponent+1:
		return tooLarge
	case magnitude < minExponent+1:
		return tooSmall
	}
	return tooPrecise
}

// plain says whether s is an integer already in its form: most numbers are.
func plain(s string) bool {
	digits := strings.TrimPrefix(s, "-")
	if digits == "" || len(digits) > maxDigits || digits[0] == '0' {
		return s == "0"
	}
	for i := range len(digits) {
		if digits[i] < '0' || digits[i] > '9' {
			return false
		}
	}
	return true
}

// decimal is d.ddd × 10^exp. Its digits have no zero at either end; zero has none at all, and an exponent
// only for being refused by it.
type decimal struct {
	negative bool
	digits   string
	exp      int
}

// readDecimal reads what Java's BigDecimal reads, which is what AWS takes.
func readDecimal(s string) (d decimal, ok bool) {
	if s != "" && (s[0] == '-' || s[0] == '+') {
		d.negative = s[0] == '-'
		s = s[1:]
	}
	mantissa, exponent := s, 0
	if i := strings.IndexAny(s, "eE"); i >= 0 {
		mantissa = s[:i]
		if exponent, ok = readExponent(s[i+1:]); !ok {
			return d, false
		}
	}
	whole, fraction, _ := strings.Cut(mantissa, ".")
	if whole == "" && fraction == "" || !allDigits(whole) || !allDigits(fraction) {
		return d, false
	}
	digits := whole + fraction
	trimmed := strings.TrimLeft(digits, "0")
	if trimmed == "" {
		return decimal{exp: exponent}, true
	}
	d.exp = exponent + len(whole) - 1 - (len(digits) - len(trimmed))
	d.digits = strings.TrimRight(trimmed, "0")
	return d, true
}

// readExponent reads an exponent of up to 64 bits; one beyond every range stays beyond every range.
func readExponent(s string) (int, bool) {
	negative := strings.HasPrefix(s, "-")
	if negative || strings.HasPrefix(s, "+") {
		s = s[1:]
	}
	if s == "" || !allDigits(s) {
		return 0, false
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 0, false
	}
	const beyond = 1 << 30
	exponent := int(min(n, beyond))
	if negative {
		exponent = -exponent
	}
	return exponent, true
}

func allDigits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

func (d decimal) check() *Error {
	switch {
	case d.exp > maxExponent:
		return invalid(tooLarge)
	case d.exp < minExponent:
		return invalid(tooSmall)
	case len(d.digits) > maxDigits:
		return invalid(tooPrecise)
	}
	return nil
}

// String is the form of a decimal that passed check.
func (d decimal) String() string {
	if d.digits == "" {
		return "0"
	}
	var b strings.Builder
	if d.negative {
		b.WriteByte('-')
	}
	whole := d.exp + 1 // how many digits stand before the point
	switch {
	case whole <= 0:
		b.WriteString("0.")
		zeros(&b, -whole)
		b.WriteString(d.digits)
	case whole >= len(d.digits):
		b.WriteString(d.digits)
		zeros(&b, whole-len(d.digits))
	default:
		b.WriteString(d.digits[:whole])
		b.WriteByte('.')
		b.WriteString(d.digits[whole:])
	}
	return b.String()
}

func zeros(b *strings.Builder, n int) {
	for range n {
		b.WriteByte('0')
	}
}

// compareNumbers orders two numbers in their form.
func compareNumbers(a, b string) int {
	negativeA, negativeB := strings.HasPrefix(a, "-"), strings.HasPrefix(b, "-")
	switch {
	case negativeA && negativeB:
		return compareMagnitudes(b[1:], a[1:])
	case negativeA:
		return -1
	case negativeB:
		return 1
	}
	return compareMagnitudes(a, b)
}

func compareMagnitudes(a, b string) int {
	wholeA, fractionA, _ := strings.Cut(a, ".")
	wholeB, fractionB, _ := strings.Cut(b, ".")
	if len(wholeA) != len(wholeB) {
		return len(wholeA) - len(wholeB)
	}
	if order := compareText(wholeA, wholeB); order != 0 {
		return order
	}
	return compareText(fractionA, fractionB)
}

// Add is a + b, both in the form that Number gives. What has no place in a number is an *Error.
func Add(a, b string) (string, error) { return sum(a, b, false) }

// Sub is a - b, as Add.
func Sub(a, b string) (string, error) { return sum(a, b, true) }

func sum(a, b string, subtract bool) (string, error) {
	if len(a) <= 18 && len(b) <= 18 {
		x, errX := strconv.ParseInt(a, 10, 64)
		y, errY := strconv.ParseInt(b, 10, 64)
		if errX == nil && errY == nil {
			if subtract {
				y = -y
			}
			return strconv.FormatInt(x+y, 10), nil
		}
	}
	dx, okX := readDecimal(a)
	dy, okY := readDecimal(b)
	if !okX || !okY {
		return "", invalid(notNumeric)
	}
	if err := dx.check(); err != nil {
		return "", err
	}
	if err := dy.check(); err != nil {
		return "", err
	}
	if subtract {
		dy.negative = !dy.negative
	}
	unit := min(dx.unit(), dy.unit()) // the power of ten of the last digit of both
	x, y := dx.integer(unit), dy.integer(unit)
	total := x.Add(x, y).String()
	d, _ := readDecimal(total)
	d.exp += unit
	if err := d.check(); err != nil {
		if len(d.digits) > maxDigits {
			err = invalid(tooLarge) // AWS says so of a sum that has too many digits
		}
		return "", err
	}
	return d.String(), nil
}

func (d decimal) unit() int {
	if d.digits == "" {
		return 0
	}
	return d.exp - len(d.digits) + 1
}

// integer is the decimal in units of 10^unit.
func (d decimal) integer(unit int) *big.Int {
	if d.digits == "" {
		return new(big.Int)
	}
	n, _ := new(big.Int).SetString(d.digits+strings.Repeat("0", d.unit()-unit), 10)
	if d.negative {
		n.Neg(n)
	}
	return n
}

// numberSize is how many bytes DynamoDB counts for a number: 1, 1 for each two digits before the point and
// for each two behind it, without the zeros at either end, and 1 for a minus sign.
func numberSize(s string) int {
	d, _ := readDecimal(s)
	if d.digits == "" {
		return 1
	}
	whole := min(max(d.exp+1, 0), len(d.digits))
	size := 1 + (whole+1)/2 + (len(d.digits)-whole+1)/2
	if d.negative {
		size++
	}
	return size
}
