//go:build scenario

package test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/jackc/pgx/v5"
)

// A database and a cache whose backups go to a bucket of the same manifest: nobody sets a key, the archive waits while
// the buckets' process is gone, and what is restored from there is whole.
func TestBackupsGoToABucketOfTheManifest(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	dir := write(t, t.TempDir(), map[string]string{"tenfold.yaml": "app: shop\ndatabases: {db: {backups: {to: archive, key: KEY}}}\ncaches: {cache: {backups: {to: archive, key: KEY}}}\nbuckets: [archive]\nsecrets: {KEY: {generate: 32}}\n"})
	if out := h.up(dir); !strings.Contains(out, "lie in archive, on this house's own disk") {
		t.Errorf("nothing says that they lie on the disk that they protect:\n%s", out)
	}
	connect := func(args ...string) *pgx.Conn {
		t.Helper()
		c, err := pgx.Connect(t.Context(), strings.TrimSpace(h.must(dir, append([]string{"db", "url"}, args...)...)))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close(context.Background()) })
		return c
	}
	db := connect()
	do := func(sql string) {
		t.Helper()
		if _, err := db.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	do("create table t (n int primary key)")
	do("insert into t select generate_series(1, 1000)")
	files := bucketClient(h.bucketEnv(dir))
	keys := func(prefix string) (out []string) {
		t.Helper()
		all := s3.NewListObjectsV2Paginator(files, &s3.ListObjectsV2Input{Bucket: aws.String("archive"), Prefix: aws.String("shop/production/" + prefix)})
		for all.HasMorePages() {
			page, err := all.NextPage(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, o := range page.Contents {
				out = append(out, *o.Key)
			}
		}
		return out
	}
	whole := func(k string) bool { return strings.HasSuffix(k, "/backup.zst.age") }
	eventually(t, "a base backup in the bucket", 60*time.Second, func() bool { return slices.ContainsFunc(keys("db/"), whole) })

	h.kill("house files")
	do("insert into t select generate_series(1001, 2000)")
	do("create table filler (pad text); alter table filler alter pad set storage external")
	do("insert into filler select repeat(md5(g::text), 60) from generate_series(1, 20000) g") // more than two segments
	segments := func() int { return len(keys("db/wal/")) }
	eventually(t, "WAL in the bucket", 60*time.Second, func() bool { return segments() > 0 })
	name := strings.Fields(h.must(dir, "db", "restore", "--to", "latest"))[0]
	var n int
	if err := connect("--name", name).QueryRow(t.Context(), "select count(*) from t").Scan(&n); err != nil || n != 2000 {
		t.Errorf("%s has %d rows: %v", name, n, err)
	}

	cache := func(command string, args ...string) (string, error) {
		name, words := args[0], []any{}
		for _, a := range args[1:] {
			words = append(words, a)
		}
		return redisDo(strings.TrimSpace(h.must(dir, "cache", "url", "--name", name)), command, words...)
	}
	if _, err := cache("SET", "cache", "k", "v"); err != nil {
		t.Fatal(err)
	}
	h.must(dir, "cache", "backup")
	if !slices.ContainsFunc(keys("cache/"), whole) {
		t.Errorf("no backup of the cache: %q", keys("cache/"))
	}
	name = strings.Fields(h.must(dir, "cache", "restore", "--to", "latest"))[0]
	if v, err := cache("GET", name, "k"); err != nil || v != "v" {
		t.Errorf("%s has %q: %v", name, v, err)
	}

	// What is lost in the bucket is said by its name, and nothing else is taken for it.
	for _, k := range keys("db/") {
		if strings.Contains(k, "/base/") && !whole(k) {
			if _, err := files.DeleteObjects(t.Context(), &s3.DeleteObjectsInput{Bucket: aws.String("archive"), Delete: &types.Delete{Objects: []types.ObjectIdentifier{{Key: &k}}}}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if out, status := h.runIn(dir, "db", "restore", "--to", "latest"); status == 0 || !strings.Contains(out, "base/") {
		t.Errorf("a restore of a backup whose data is gone: %d\n%s", status, out)
	}
}
