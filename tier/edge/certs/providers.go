package certs

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	awsroute53 "github.com/aws/aws-sdk-go-v2/service/route53"
	"github.com/go-acme/lego/v5/providers/dns/cloudflare"
	"github.com/go-acme/lego/v5/providers/dns/digitalocean"
	"github.com/go-acme/lego/v5/providers/dns/gandiv5"
	"github.com/go-acme/lego/v5/providers/dns/hetzner"
	"github.com/go-acme/lego/v5/providers/dns/ovh"
	"github.com/go-acme/lego/v5/providers/dns/route53"
)

// The providers of lego. Their Configs are filled in here from the credentials alone: lego's own
// defaults, and the defaults of AWS and OVH, come from the process's environment and from files of
// the user that runs it, where one app's credentials would be every app's.

const (
	apiTimeout = 30 * time.Second
	// recordTTL is what all of them allow; the record lives for a minute.
	recordTTL = 120
	gandiTTL  = 300 // its least
)

func newCloudflare(text string) (DNSProvider, error) {
	token, err := bare(text)
	if err != nil {
		return nil, err
	}
	return cloudflare.NewDNSProviderConfig(&cloudflare.Config{AuthToken: token, TTL: recordTTL, HTTPClient: &http.Client{Timeout: apiTimeout}})
}

func newDigitalOcean(text string) (DNSProvider, error) { return newDigitalOceanAt("")(text) }

// newDigitalOceanAt is newDigitalOcean with another address of the service, of tests.
func newDigitalOceanAt(base string) func(string) (DNSProvider, error) {
	return func(text string) (DNSProvider, error) {
		token, err := bare(text)
		if err != nil {
			return nil, err
		}
		return digitalocean.NewDNSProviderConfig(&digitalocean.Config{BaseURL: base, AuthToken: token, TTL: recordTTL, HTTPClient: &http.Client{Timeout: apiTimeout}})
	}
}

func newHetzner(text string) (DNSProvider, error) {
	token, err := bare(text)
	if err != nil {
		return nil, err
	}
	return hetzner.NewDNSProviderConfig(&hetzner.Config{APIToken: token, TTL: recordTTL, PropagationTimeout: 2 * time.Minute, PollingInterval: 2 * time.Second, HTTPClient: &http.Client{Timeout: apiTimeout}})
}

func newGandi(text string) (DNSProvider, error) {
	token, err := bare(text)
	if err != nil {
		return nil, err
	}
	return gandiv5.NewDNSProviderConfig(&gandiv5.Config{PersonalAccessToken: token, TTL: gandiTTL, HTTPClient: &http.Client{Timeout: apiTimeout}})
}

func newOVH(text string) (DNSProvider, error) {
	f, err := fields(text, []string{"OVH_ENDPOINT", "OVH_APPLICATION_KEY", "OVH_APPLICATION_SECRET", "OVH_CONSUMER_KEY"}, nil)
	if err != nil {
		return nil, err
	}
	return ovh.NewDNSProviderConfig(&ovh.Config{
		APIEndpoint: f["OVH_ENDPOINT"], ApplicationKey: f["OVH_APPLICATION_KEY"], ApplicationSecret: f["OVH_APPLICATION_SECRET"], ConsumerKey: f["OVH_CONSUMER_KEY"],
		TTL: recordTTL, HTTPClient: &http.Client{Timeout: apiTimeout},
	})
}

func newRoute53(text string) (DNSProvider, error) {
	f, err := fields(text, []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}, []string{"AWS_SESSION_TOKEN", "AWS_REGION", "AWS_HOSTED_ZONE_ID"})
	if err != nil {
		return nil, err
	}
	region := f["AWS_REGION"]
	if region == "" {
		region = "us-east-1" // where the service has its one address
	}
	return route53.NewDNSProviderConfig(&route53.Config{
		HostedZoneID: f["AWS_HOSTED_ZONE_ID"], TTL: recordTTL, MaxRetries: 5,
		Client: awsroute53.New(awsroute53.Options{
			Region: region, RetryMaxAttempts: 5, HTTPClient: &http.Client{Timeout: apiTimeout},
			Credentials: aws.NewCredentialsCache(credentials.NewStaticCredentialsProvider(f["AWS_ACCESS_KEY_ID"], f["AWS_SECRET_ACCESS_KEY"], f["AWS_SESSION_TOKEN"])),
		}),
	})
}

// bare is a text that is one token.
func bare(text string) (string, error) {
	name, _, named := strings.Cut(text, "=")
	switch {
	case strings.ContainsAny(text, " \t\r\n"):
		return "", errors.New("its credentials are the token alone, on one line")
	case named && name == strings.ToUpper(name) && strings.Contains(name, "_"):
		return "", errors.New("its credentials are the token alone, without a name and =")
	}
	return text, nil
}

// fields reads lines of KEY=value; those that begin with # say nothing.
func fields(text string, must, may []string) (map[string]string, error) {
	out := map[string]string{}
	for n, line := range strings.Split(text, "\n") {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		name, value, ok := strings.Cut(line, "=")
		name, value = strings.TrimSpace(name), strings.TrimSpace(value)
		if !ok || !slices.Contains(must, name) && !slices.Contains(may, name) {
			return nil, fmt.Errorf("line %d of its credentials is not KEY=value with KEY one of %s", n+1, strings.Join(slices.Concat(must, may), ", "))
		}
		out[name] = strings.Trim(value, `"'`)
	}
	for _, name := range must {
		if out[name] == "" {
			return nil, fmt.Errorf("its credentials have no line %s=…", name)
		}
	}
	return out, nil
}

// plainly are the fields that are no secret.
var plainly = []string{"AWS_REGION", "AWS_HOSTED_ZONE_ID", "OVH_ENDPOINT"}

// secretsOf are the parts of credentials that nobody may read, in whatever form they are written.
func secretsOf(text string) []string {
	out := []string{strings.TrimSpace(text)}
	for line := range strings.Lines(text) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if ok && !slices.Contains(plainly, strings.TrimSpace(name)) {
			out = append(out, strings.Trim(strings.TrimSpace(value), `"'`))
		}
	}
	if u, err := url.Parse(strings.TrimSpace(text)); err == nil && u.User != nil {
		secret, _ := u.User.Password()
		out = append(out, secret, url.QueryEscape(secret), url.PathEscape(secret))
	}
	return slices.DeleteFunc(out, func(s string) bool { return len(s) < 4 })
}
