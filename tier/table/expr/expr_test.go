package expr

import (
	"testing"

	"tenfold/tier/table/attr"
)

func TestSmoke(t *testing.T) {
	a := &Args{Values: attr.Item{":v": attr.String("x")}}
	c, err := ParseCondition("ConditionExpression", "a = :v AND NOT (attribute_exists(b) OR b <> :v)", a)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Unused(); err != nil {
		t.Fatal(err)
	}
	ok, err := c.Holds(attr.Item{"a": attr.String("x"), "b": attr.String("x")})
	if ok || err != nil {
		t.Error(ok, err)
	}
}
