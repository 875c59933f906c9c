//go:build conformance

package bucket

import (
	"github.com/versity/versitygw/auth"
	"github.com/versity/versitygw/s3api"

	"tenfold/internal/awsapi"
)

// Suite has a store answer as versitygw's own test suite expects of a whole versitygw: it has users of its own, with
// roles, and an API that makes them. Tenfold has neither (who may do what is the manifest's business), so the
// engine alone decides here what they may; and its one address is the route of any bucket. All else is as it is in the
// house. Without versions the engine has no folder for them, and the suite another set of tests.
func (c *Config) Suite(root awsapi.Key, users auth.IAMService, versions bool) {
	c.suite = &suite{root: root, users: users, flat: !versions, options: []s3api.Option{s3api.WithAdminServer()}}
}
