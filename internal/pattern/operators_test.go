package pattern_test

import (
	"strings"
	"testing"

	"tenfold/internal/pattern"
)

// The examples of "Comparison operators for use in event patterns" of EventBridge's User Guide: each with an event that
// it takes and one that it does not.
func TestOperatorsOfTheGuide(t *testing.T) {
	for _, x := range []struct{ pattern, takes, refuses string }{
		{`{"source":["aws.ec2"],"detail-type":["EC2 Instance State-change Notification"],"detail":{"state":["terminated"]}}`, `{"source":"aws.ec2","detail-type":"EC2 Instance State-change Notification","detail":{"state":"terminated","instance-id":"i-1"}}`, `{"source":"aws.ec2","detail-type":"EC2 Instance State-change Notification","detail":{"state":"running"}}`},
		{`{"detail":{"eventVersion":[""]}}`, `{"detail":{"eventVersion":""}}`, `{"detail":{"eventVersion":null}}`},
		{`{"detail":{"responseElements":[null]}}`, `{"detail":{"responseElements":null}}`, `{"detail":{"responseElements":""}}`},
		{`{"time":[{"prefix":"2017-10-02"}]}`, `{"time":"2017-10-02T18:43:48Z"}`, `{"time":"2017-10-03T18:43:48Z"}`},
		{`{"detail":{"service":[{"prefix":{"equals-ignore-case":"EventB"}}]}}`, `{"detail":{"service":"eventBridge"}}`, `{"detail":{"service":"myEventBridge"}}`},
		{`{"FileName":[{"suffix":".png"}]}`, `{"FileName":"a.png"}`, `{"FileName":"a.PNG"}`},
		{`{"detail":{"FileName":[{"suffix":{"equals-ignore-case":".png"}}]}}`, `{"detail":{"FileName":"a.PNG"}}`, `{"detail":{"FileName":"png.a"}}`},
		{`{"detail":{"state":[{"anything-but":"initializing"}]}}`, `{"detail":{"state":"running"}}`, `{"detail":{"state":"initializing"}}`},
		{`{"detail":{"x-limit":[{"anything-but":123}]}}`, `{"detail":{"x-limit":456}}`, `{"detail":{"x-limit":123.0}}`},
		{`{"detail":{"state":[{"anything-but":["stopped","overloaded"]}]}}`, `{"detail":{"state":"running"}}`, `{"detail":{"state":"overloaded"}}`},
		{`{"detail":{"x-limit":[{"anything-but":[100,200,300]}]}}`, `{"detail":{"x-limit":400}}`, `{"detail":{"x-limit":200}}`},
		{`{"detail":{"state":[{"anything-but":{"equals-ignore-case":"initializing"}}]}}`, `{"detail":{"state":"running"}}`, `{"detail":{"state":"INITIALIZING"}}`},
		{`{"detail":{"state":[{"anything-but":{"equals-ignore-case":["initializing","stopped"]}}]}}`, `{"detail":{"state":"running"}}`, `{"detail":{"state":"Stopped"}}`},
		{`{"detail":{"state":[{"anything-but":{"prefix":"init"}}]}}`, `{"detail":{"state":"running"}}`, `{"detail":{"state":"initializing"}}`},
		{`{"detail":{"state":[{"anything-but":{"prefix":["init","stop"]}}]}}`, `{"detail":{"state":"running"}}`, `{"detail":{"state":"stopped"}}`},
		{`{"detail":{"FileName":[{"anything-but":{"suffix":".txt"}}]}}`, `{"detail":{"FileName":".txt.bak"}}`, `{"detail":{"FileName":"a.txt"}}`},
		{`{"detail":{"FileName":[{"anything-but":{"suffix":[".txt",".rtf"]}}]}}`, `{"detail":{"FileName":".rtf.bak"}}`, `{"detail":{"FileName":"a.rtf"}}`},
		{`{"detail":{"FilePath":[{"anything-but":{"wildcard":"*/lib/*"}}]}}`, `{"detail":{"FilePath":"/tmp/a"}}`, `{"detail":{"FilePath":"/usr/lib/a"}}`},
		{`{"detail":{"FilePath":[{"anything-but":{"wildcard":["*/lib/*","*/bin/*"]}}]}}`, `{"detail":{"FilePath":"/tmp/a"}}`, `{"detail":{"FilePath":"/usr/bin/a"}}`},
		{`{"detail":{"c-count":[{"numeric":[">",0,"<=",5]}],"d-count":[{"numeric":["<",10]}],"x-limit":[{"numeric":["=",3.018e2]}]}}`, `{"detail":{"c-count":5,"d-count":9.9,"x-limit":301.8}}`, `{"detail":{"c-count":0,"d-count":9.9,"x-limit":301.8}}`},
		{`{"detail":{"sourceIPAddress":[{"cidr":"10.0.0.0/24"}]}}`, `{"detail":{"sourceIPAddress":"10.0.0.255"}}`, `{"detail":{"sourceIPAddress":"10.0.1.255"}}`},
		{`{"detail":{"sourceIPAddress":[{"cidr":"2001:0db8:1234:1a00::/64"}]}}`, `{"detail":{"sourceIPAddress":"2001:db8:1234:1a00::7"}}`, `{"detail":{"sourceIPAddress":"2001:db8:1234:1a02::7"}}`},
		{`{"detail":{"state":[{"exists":true}]}}`, `{"detail":{"state":null}}`, `{"detail":{"other":1}}`},
		{`{"detail":{"state":[{"exists":false}]}}`, `{"detail":{"other":1}}`, `{"detail":{"state":""}}`},
		// Of leaves alone: an object, or a list without values, is not there.
		{`{"detail":{"state":[{"exists":false}]}}`, `{"detail":{"state":{"is":"object"}}}`, `{"detail":{"state":[1]}}`},
		{`{"resources":[{"exists":true}]}`, `{"resources":["arn"]}`, `{"resources":[]}`},
		{`{"detail-type":[{"equals-ignore-case":"ec2 instance state-change notification"}]}`, `{"detail-type":"EC2 Instance State-change Notification"}`, `{"detail-type":"EC2 Instance"}`},
		{`{"EventBusArn":[{"wildcard":"arn:aws:events:us-east-1:*:event-bus/*"}]}`, `{"EventBusArn":"arn:aws:events:us-east-1:123456789012:event-bus/myEventBus"}`, `{"EventBusArn":"arn:aws:events:us-east-2:1:event-bus/x"}`},
		{`{"path":[{"wildcard":"a\\*b*"}]}`, `{"path":"a*bc"}`, `{"path":"axbc"}`},
		{`{"detail":{"$or":[{"c-count":[{"numeric":[">",0,"<=",5]}]},{"d-count":[{"numeric":["<",10]}]},{"x-limit":[{"numeric":["=",3.018e2]}]}]}}`, `{"detail":{"c-count":9,"d-count":9,"x-limit":1}}`, `{"detail":{"c-count":9,"d-count":10,"x-limit":1}}`},
		{`{"source":["aws.cloudwatch"],"$or":[{"detail":{"alarm":["x"]}},{"detail":{"metric":["y"],"alarm":["z"]}}]}`, `{"source":"aws.cloudwatch","detail":{"metric":"y","alarm":"z"}}`, `{"source":"aws.cloudwatch","detail":{"metric":"y","alarm":"a"}}`},
		{`{"resources":["arn:1","arn:2"]}`, `{"resources":["arn:0","arn:2"]}`, `{"resources":["arn:0"]}`},
		{`{"detail":{"Location":[{"prefix":"eu-"}],"State":[{"anything-but":"off"}],"n":[1,{"numeric":["=",2]}]}}`, `{"detail":{"Location":"eu-west-1","State":"on","n":2}}`, `{"detail":{"Location":"eu-west-1","State":"off","n":2}}`},
		// A name with dots is a path, on either side.
		{`{"detail":{"state.status":["running"]}}`, `{"detail":{"state":{"status":"running"}}}`, `{"detail":{"state":{"status":"stopped"}}}`},
		{`{"detail":{"state":{"status":["running"]}}}`, `{"detail":{"state.status":"running","state.other":1}}`, `{"detail":{"state.other":"running"}}`},
	} {
		p, err := pattern.Parse([]byte(x.pattern))
		if err != nil {
			t.Errorf("%s: %v", x.pattern, err)
			continue
		}
		if !p.Matches([]byte(x.takes)) {
			t.Errorf("%s does not take %s", x.pattern, x.takes)
		}
		if p.Matches([]byte(x.refuses)) {
			t.Errorf("%s takes %s", x.pattern, x.refuses)
		}
	}
}

// What is wrong with a pattern is told in AWS' words, and where.
func TestWordsOfRefusals(t *testing.T) {
	for p, want := range map[string]string{
		`{"a":1}`:                                                        `"a" must be an object or an array`,
		`{"a":[]}`:                                                       `Empty arrays are not allowed`,
		`[]`:                                                             `Filter is not an object`,
		`{"a":[{"EXISTS":true}]}`:                                        `Unrecognized match type EXISTS`,
		`{"a":[{"exists":"yes"}]}`:                                       `exists match pattern must be either true or false`,
		`{"a":[{"numeric":5}]}`:                                          `Value of numeric must be an array.`,
		`{"a":[{"numeric":[">",0,"<"]}]}`:                                `Value of < must be numeric`,
		`{"a":[{"numeric":[">",0,">",0]}]}`:                              `Bad numeric range operator: >`,
		`{"a":[{"numeric":["<",5,">",0]}]}`:                              `Too many terms in numeric range expression`,
		`{"a":[{"numeric":[">",5,"<",1]}]}`:                              `Bottom must be less than top`,
		`{"a":[{"prefix":["x"]}]}`:                                       `prefix match pattern must be a string`,
		`{"a":[{"suffix":1}]}`:                                           `suffix match pattern must be a string`,
		`{"a":[{"wildcard":1}]}`:                                         `wildcard match pattern must be a string`,
		`{"a":[{"wildcard":"a**b"}]}`:                                    `Consecutive wildcard characters at pos 2`,
		`{"a":[{"equals-ignore-case":["x"]}]}`:                           `equals-ignore-case match pattern must be a string`,
		`{"a":[{"cidr":"x"}]}`:                                           `Malformed CIDR, one '/' required`,
		`{"a":[{"cidr":1}]}`:                                             `prefix match pattern must be a string`,
		`{"a":[{"cidr":"xx.11.xx/8"}]}`:                                  `Nonstandard IP address: xx.11.xx`,
		`{"a":[{"cidr":"10.0.0.0/x"}]}`:                                  `Malformed CIDR, mask bits must be an integer`,
		`{"a":[{"anything-but":null}]}`:                                  `Value of anything-but must be an array or single string/number value.`,
		`{"a":[{"anything-but":["x",null]}]}`:                            `Inside anything but list, start|null|boolean is not supported.`,
		`{"a":[{"anything-but":{"prefix":""}}]}`:                         `Null prefix/suffix not allowed`,
		`{"a":[{"anything-but":{"suffix":[1]}}]}`:                        `prefix/suffix match pattern must be a string`,
		`{"a":[{"anything-but":{"wildcard":[1]}}]}`:                      `wildcard match pattern must be a string`,
		`{"a":[{"anything-but":{"equals-ignore-case":1}}]}`:              `Inside anything-but/equals-ignore-case list, number|start|null|boolean is not supported.`,
		`{"a":[{"anything-but":{"prefix":{"equals-ignore-case":"x"}}}]}`: `Value of anything-but must be an array or single string/number value.`,
	} {
		_, err := pattern.Parse([]byte(p))
		if err == nil || !strings.HasPrefix(err.Error(), "Event pattern is not valid. Reason: "+want) {
			t.Errorf("%s: %v, want %s", p, err, want)
		}
		if err != nil && p != `[]` && !strings.HasSuffix(err.Error(), " at a") {
			t.Errorf("%s: %v does not say where", p, err)
		}
	}
}
