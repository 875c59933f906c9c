package pattern_test

import (
	"testing"

	"tenfold/internal/pattern"
)

const event = `{"source":"shop.orders","detail-type":"paid","account":"1","detail":{"id":"o-17","total":120.5,"state":"Open","tags":["a","blue"],"ip":"10.0.0.7","file":"dir/photo.png","none":null,"yes":true,"lines":[{"sku":"x","n":1},{"sku":"y","n":5}]}}`

func TestMatches(t *testing.T) {
	for p, want := range map[string]bool{
		`{"source":["shop.orders"]}`:                                                true,
		`{"source":["other","shop.orders"],"detail":{"state":["Open"]}}`:            true,
		`{"source":["other"]}`:                                                      false,
		`{"detail":{"total":[120.50]}}`:                                             true,
		`{"detail":{"total":[{"numeric":[">",100,"<=",120.5]}]}}`:                   true,
		`{"detail":{"total":[{"numeric":["=",1.205e2]}]}}`:                          true,
		`{"detail":{"total":[{"numeric":[">",200]}]}}`:                              false,
		`{"detail":{"id":[{"prefix":"o-"}]}}`:                                       true,
		`{"detail":{"id":[{"prefix":{"equals-ignore-case":"O-"}}]}}`:                true,
		`{"detail":{"file":[{"suffix":".png"}]}}`:                                   true,
		`{"detail":{"file":[{"suffix":{"equals-ignore-case":".PNG"}}]}}`:            true,
		`{"detail":{"file":[{"wildcard":"dir/*.png"}]}}`:                            true,
		`{"detail":{"file":[{"wildcard":"dir/*.jpg"}]}}`:                            false,
		`{"detail":{"file":[{"wildcard":"*o*o*"}]}}`:                                true,
		`{"detail":{"state":[{"equals-ignore-case":"oPEN"}]}}`:                      true,
		`{"detail":{"state":[{"anything-but":"Closed"}]}}`:                          true,
		`{"detail":{"state":[{"anything-but":["Open","Closed"]}]}}`:                 false,
		`{"detail":{"state":[{"anything-but":{"prefix":"Op"}}]}}`:                   false,
		`{"detail":{"state":[{"anything-but":{"suffix":["x","y"]}}]}}`:              true,
		`{"detail":{"state":[{"anything-but":{"wildcard":"O*n"}}]}}`:                false,
		`{"detail":{"state":[{"anything-but":{"equals-ignore-case":["open"]}}]}}`:   false,
		`{"detail":{"missing":[{"anything-but":"x"}]}}`:                             false,
		`{"detail":{"tags":["blue"]}}`:                                              true,
		`{"detail":{"tags":[{"prefix":"c"}]}}`:                                      false,
		`{"detail":{"ip":[{"cidr":"10.0.0.0/24"}]}}`:                                true,
		`{"detail":{"ip":[{"cidr":"10.0.1.0/24"}]}}`:                                false,
		`{"detail":{"none":[null]}}`:                                                true,
		`{"detail":{"missing":[null]}}`:                                             false,
		`{"detail":{"yes":[true]}}`:                                                 true,
		`{"detail":{"missing":[{"exists":false}]}}`:                                 true,
		`{"detail":{"id":[{"exists":true}]}}`:                                       true,
		`{"missing":{"deep":[{"exists":false}]}}`:                                   true,
		`{"detail":{"lines":{"sku":["y"],"n":[5]}}}`:                                true,
		`{"detail":{"lines":{"sku":["x"],"n":[5]}}}`:                                false,
		`{"$or":[{"source":["other"]},{"detail":{"total":[{"numeric":[">",1]}]}}]}`: true,
		`{"source":["shop.orders"],"$or":[{"account":["2"]},{"account":["3"]}]}`:    false,
		`{"detail":{"total":["120.5"]}}`:                                            false,
	} {
		x, err := pattern.Parse([]byte(p))
		if err != nil {
			t.Errorf("%s: %v", p, err)
		} else if got := x.Matches([]byte(event)); got != want {
			t.Errorf("%s: %v", p, got)
		}
	}
	for _, p := range []string{
		``, `[]`, `{}`, `{"a":"b"}`, `{"a":[]}`, `{"a":{}}`, `{"a":[[1]]}`, `{"a":[{"numeric":[">"]}]}`, `{"a":[{"numeric":["!",1]}]}`, `{"a":[{"numeric":["< <=",1]}]}`, `{"a":[{"prefix":1}]}`,
		`{"a":[{"exists":"x"}]}`, `{"a":[{"cidr":"10.0.0.1"}]}`, `{"a":[{"what":"x"}]}`, `{"a":[{"prefix":"x","suffix":"y"}]}`, `{"a":[{"wildcard":"a**b"}]}`, `{"a":[{"wildcard":"a\\b"}]}`,
		`{"$or":[{"a":[1]}]}`, `{"a":[{"anything-but":[]}]}`, `{"a":[{"anything-but":[true]}]}`, `{"a":[1]} x`,
	} {
		if _, err := pattern.Parse([]byte(p)); err == nil {
			t.Errorf("%s was taken", p)
		}
	}
}

func FuzzPattern(f *testing.F) {
	f.Add(`{"detail":{"total":[{"numeric":[">",100]}],"$or":[{"a":[1]},{"b":[{"wildcard":"x*y"}]}]}}`, event)
	f.Add(`{"a":[{"numeric":["=",1e99999]}]}`, `{"a":1e999999999}`)
	f.Fuzz(func(t *testing.T, p, e string) {
		if x, err := pattern.Parse([]byte(p)); err == nil {
			x.Matches([]byte(e))
		}
	})
}
