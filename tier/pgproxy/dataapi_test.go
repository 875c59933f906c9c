package pgproxy

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awskeys "github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/rdsdata"
	"github.com/aws/aws-sdk-go-v2/service/rdsdata/types"
	"github.com/aws/smithy-go"

	"tenfold/internal/pooldir"
)

const clusterARN, secretARN = "arn:aws:rds:us-east-1:000000000000:cluster:shop-db", "arn:aws:secretsmanager:us-east-1:000000000000:secret:shop-db"

func withAPI(db *pooldir.Database) {
	db.API = &pooldir.API{Resource: clusterARN, Secret: secretARN, Database: "postgres", Keys: []pooldir.Key{{ID: "AKAPI", Secret: "s1", Service: "api"}, {ID: "AKJOB", Secret: "s2", Service: "job"}}}
}

// sdk is AWS's own client with another endpoint and credentials, and nothing else.
type sdk struct {
	*rdsdata.Client
	t testing.TB
}

func (f *fixture) sdk(key, secret string, change ...func(*rdsdata.Options)) sdk {
	o := rdsdata.Options{Region: "us-east-1", BaseEndpoint: aws.String("http://" + f.addr), Credentials: awskeys.NewStaticCredentialsProvider(key, secret, ""), RetryMaxAttempts: 1}
	return sdk{rdsdata.New(o, change...), f.t}
}

func (s sdk) try(sql string, change ...func(*rdsdata.ExecuteStatementInput)) (*rdsdata.ExecuteStatementOutput, error) {
	in := &rdsdata.ExecuteStatementInput{ResourceArn: aws.String(clusterARN), SecretArn: aws.String(secretARN), Sql: aws.String(sql)}
	for _, c := range change {
		c(in)
	}
	return s.ExecuteStatement(context.Background(), in)
}

func (s sdk) do(sql string, change ...func(*rdsdata.ExecuteStatementInput)) *rdsdata.ExecuteStatementOutput {
	s.t.Helper()
	out, err := s.try(sql, change...)
	if err != nil {
		s.t.Fatalf("%s: %v", sql, err)
	}
	return out
}

func with(name string, v types.Field, hint ...types.TypeHint) func(*rdsdata.ExecuteStatementInput) {
	p := types.SqlParameter{Name: aws.String(name), Value: v}
	if len(hint) > 0 {
		p.TypeHint = hint[0]
	}
	return func(in *rdsdata.ExecuteStatementInput) { in.Parameters = append(in.Parameters, p) }
}

func text(s string) types.Field { return &types.FieldMemberStringValue{Value: s} }
func long(n int64) types.Field  { return &types.FieldMemberLongValue{Value: n} }

func TestDataAPITypes(t *testing.T) {
	f := begin(t, withAPI)
	c := f.sdk("AKAPI", "s1")
	out := c.do("create table t (id serial primary key, b bool, n int8, f float8, d numeric(8,2), s text, x bytea, u uuid, j jsonb, day date, at timestamp, z timestamptz, ns int[], m text[])")
	if out.NumberOfRecordsUpdated != 0 || out.Records != nil {
		t.Errorf("%+v", out)
	}
	out = c.do(`insert into t (b, n, f, d, s, x, u, j, day, at, z, ns, m) values (:b, :n, :f, :d, :s, :x, :u, :j, :day, :at, :at, '{1,NULL,3}'::int[], cast('{{a,"b,\"c"},{d,e}}' as text[])) -- not :this`,
		with("b", &types.FieldMemberBooleanValue{Value: true}), with("n", long(math.MaxInt64)), with("f", &types.FieldMemberDoubleValue{Value: math.Inf(1)}),
		with("d", text("12.50"), types.TypeHintDecimal), with("s", text("it's ':n' é")), with("x", &types.FieldMemberBlobValue{Value: []byte{0, 255, 1}}),
		with("u", text("8f14e45f-ceea-467f-a8f6-3a1f0f6c1c11"), types.TypeHintUuid), with("j", text(`{"a": [1]}`), types.TypeHintJson),
		with("day", text("2026-02-28"), types.TypeHintDate), with("at", text("2026-02-28 10:11:12.345"), types.TypeHintTimestamp))
	if out.NumberOfRecordsUpdated != 1 || out.Records != nil || len(out.GeneratedFields) != 0 {
		t.Errorf("%+v", out)
	}
	out = c.do("select * from t where s = :s and n::text <> ':n' and :none::int is null", with("s", text("it's ':n' é")), with("none", &types.FieldMemberIsNull{Value: true}), func(in *rdsdata.ExecuteStatementInput) { in.IncludeResultMetadata = true })
	if len(out.Records) != 1 || len(out.ColumnMetadata) != 14 {
		t.Fatalf("%+v", out)
	}
	want := []types.Field{long(1), &types.FieldMemberBooleanValue{Value: true}, long(math.MaxInt64), &types.FieldMemberDoubleValue{Value: math.Inf(1)}, text("12.50"), text("it's ':n' é"),
		&types.FieldMemberBlobValue{Value: []byte{0, 255, 1}}, text("8f14e45f-ceea-467f-a8f6-3a1f0f6c1c11"), text(`{"a": [1]}`), text("2026-02-28"), text("2026-02-28 10:11:12.345"), text("2026-02-28 10:11:12.345")}
	for i, w := range want {
		a, _ := json.Marshal(out.Records[0][i])
		b, _ := json.Marshal(w)
		if !bytes.Equal(a, b) || !sameField(out.Records[0][i], w) {
			t.Errorf("column %d: %s, want %s", i, a, b)
		}
	}
	if a, ok := out.Records[0][13].(*types.FieldMemberArrayValue); !ok {
		t.Errorf("%T", out.Records[0][13])
	} else if outer, ok := a.Value.(*types.ArrayValueMemberArrayValues); !ok || len(outer.Value) != 2 || aws.ToString(outer.Value[0].(*types.ArrayValueMemberStringValues).Value[1]) != `b,"c` {
		b, _ := json.Marshal(a.Value)
		t.Errorf("%T %s", a.Value, b)
	}
	id, d := out.ColumnMetadata[0], out.ColumnMetadata[4]
	if *id.Name != "id" || *id.TypeName != "serial" || id.Type != 4 || !id.IsAutoIncrement || !id.IsSigned || id.Nullable != 0 || *id.TableName != "t" || id.Precision != 10 {
		t.Errorf("%+v", id)
	}
	if *d.TypeName != "numeric" || d.Type != 2 || d.Precision != 8 || d.Scale != 2 || d.Nullable != 1 {
		t.Errorf("%+v", d)
	}
	if ns := out.ColumnMetadata[12]; ns.Type != 2003 || ns.ArrayBaseColumnType != 4 || *ns.TypeName != "_int4" {
		t.Errorf("%+v", ns)
	}
	out = c.do("select n, d, 3::numeric as whole, ns, null as nothing from t", func(in *rdsdata.ExecuteStatementInput) {
		in.FormatRecordsAs = types.RecordsFormatTypeJson
		in.ResultSetOptions = &types.ResultSetOptions{DecimalReturnType: types.DecimalReturnTypeDoubleOrLong, LongReturnType: types.LongReturnTypeString}
	})
	if got := aws.ToString(out.FormattedRecords); got != `[{"n":"9223372036854775807","d":12.5,"whole":3,"ns":["1",null,"3"],"nothing":null}]` || out.Records != nil {
		t.Error(got, out.Records)
	}
	out = c.do("select 1 where false")
	if out.Records == nil || len(out.Records) != 0 {
		t.Errorf("%#v", out.Records)
	}
	if out = c.do("update t set n = 1 returning id"); len(out.Records) != 1 || out.NumberOfRecordsUpdated != 1 {
		t.Errorf("%+v", out)
	}
}

func sameField(a, b types.Field) bool {
	x, ok := a.(*types.FieldMemberDoubleValue)
	y, is := b.(*types.FieldMemberDoubleValue)
	return ok == is && (!ok || x.Value == y.Value)
}

func TestDataAPITransactions(t *testing.T) {
	f := begin(t, withAPI)
	c, ctx := f.sdk("AKAPI", "s1"), context.Background()
	c.do("create table t (n int primary key)")
	begin := func() string {
		out, err := c.BeginTransaction(ctx, &rdsdata.BeginTransactionInput{ResourceArn: aws.String(clusterARN), SecretArn: aws.String(secretARN), Database: aws.String("postgres")})
		if err != nil {
			t.Fatal(err)
		}
		return *out.TransactionId
	}
	in := func(id string) func(*rdsdata.ExecuteStatementInput) {
		return func(in *rdsdata.ExecuteStatementInput) { in.TransactionId = &id }
	}
	count := func(change ...func(*rdsdata.ExecuteStatementInput)) int64 {
		return c.do("select count(*) from t", change...).Records[0][0].(*types.FieldMemberLongValue).Value
	}
	commit := func(id string) (*rdsdata.CommitTransactionOutput, error) {
		return c.CommitTransaction(ctx, &rdsdata.CommitTransactionInput{ResourceArn: aws.String(clusterARN), SecretArn: aws.String(secretARN), TransactionId: &id})
	}
	id := begin()
	c.do("insert into t values (1)", in(id))
	if a, b := count(), count(in(id)); a != 0 || b != 1 {
		t.Error(a, b)
	}
	if out, err := commit(id); err != nil || *out.TransactionStatus != "Transaction Committed" {
		t.Error(out, err)
	}
	var gone *types.TransactionNotFoundException
	if _, err := commit(id); !errors.As(err, &gone) {
		t.Error(err)
	}
	id = begin()
	var job *types.TransactionNotFoundException
	if _, err := f.sdk("AKJOB", "s2").try("select 1", in(id)); !errors.As(err, &job) {
		t.Error("another service's transaction:", err)
	}
	sets := [][]types.SqlParameter{}
	for n := range 100 {
		sets = append(sets, []types.SqlParameter{{Name: aws.String("n"), Value: long(int64(n + 2))}})
	}
	batch := &rdsdata.BatchExecuteStatementInput{ResourceArn: aws.String(clusterARN), SecretArn: aws.String(secretARN), Sql: aws.String("insert into t values (:n)"), ParameterSets: sets, TransactionId: &id}
	if out, err := c.BatchExecuteStatement(ctx, batch); err != nil || len(out.UpdateResults) != 100 {
		t.Error(out, err)
	}
	if out, err := c.RollbackTransaction(ctx, &rdsdata.RollbackTransactionInput{ResourceArn: aws.String(clusterARN), SecretArn: aws.String(secretARN), TransactionId: &id}); err != nil || *out.TransactionStatus != "Rollback Complete" || count() != 1 {
		t.Error(out, err, count())
	}
	batch.TransactionId = nil
	batch.ParameterSets = append(sets, []types.SqlParameter{{Name: aws.String("n"), Value: long(1)}})
	var e *types.DatabaseErrorException
	if _, err := c.BatchExecuteStatement(ctx, batch); !errors.As(err, &e) || !strings.Contains(e.ErrorMessage(), "SQLState: 23505") || count() != 1 {
		t.Error(err, count())
	}
	// What a transaction left half done is rolled back by its commit, which says so.
	id = begin()
	c.try("insert into t values (1)", in(id))
	if _, err := commit(id); !errors.As(err, &e) || !strings.Contains(e.ErrorMessage(), "25P02") {
		t.Error(err)
	}
	begin() // left open: the end of the pool must not wait for it
	f.stop()
}

func TestDataAPIErrors(t *testing.T) {
	f := begin(t, withAPI)
	c := f.sdk("AKAPI", "s1")
	for _, x := range []struct {
		sql, code, says string
		status          int
		change          []func(*rdsdata.ExecuteStatementInput)
	}{
		{sql: "select nothing", code: "DatabaseErrorException", says: `ERROR: column "nothing" does not exist; Position: 8; SQLState: 42703`, status: 400},
		{sql: "select 1; select 2", code: "BadRequestException", says: "Multistatements aren't supported", status: 400},
		{sql: "select :a", code: "BadRequestException", says: "Cannot find parameter: a", status: 400},
		{sql: "select :a", code: "BadRequestException", says: "Array parameters are not supported.", status: 400, change: []func(*rdsdata.ExecuteStatementInput){with("a", &types.FieldMemberArrayValue{Value: &types.ArrayValueMemberLongValues{Value: []*int64{aws.Int64(1)}}})}},
		{sql: "select :a::int", code: "DatabaseErrorException", says: "22P02", status: 400, change: []func(*rdsdata.ExecuteStatementInput){with("a", text("x"))}},
		{sql: "select 1 where 1 = :a", code: "DatabaseErrorException", says: "operator does not exist: integer = character varying", status: 400, change: []func(*rdsdata.ExecuteStatementInput){with("a", text("1"))}},
		{sql: "select repeat('x', 2000000)", code: "BadRequestException", says: "more than the allowed response size", status: 400},
		{sql: "select repeat('x', 100) from generate_series(1, 20000)", code: "BadRequestException", says: "more than the allowed response size", status: 400},
		{sql: "select 1", code: "DatabaseErrorException", says: `database "else" does not exist`, status: 400, change: []func(*rdsdata.ExecuteStatementInput){func(in *rdsdata.ExecuteStatementInput) { in.Database = aws.String("else") }}},
		{sql: "select 1", code: "DatabaseNotFoundException", says: "cluster:other", status: 404, change: []func(*rdsdata.ExecuteStatementInput){func(in *rdsdata.ExecuteStatementInput) { in.ResourceArn = aws.String("arn:cluster:other") }}},
		{sql: "select 1", code: "ForbiddenException", says: "secret", status: 403, change: []func(*rdsdata.ExecuteStatementInput){func(in *rdsdata.ExecuteStatementInput) { in.SecretArn = aws.String("arn:other") }}},
		{sql: "select 1", code: "TransactionNotFoundException", says: "Transaction xyz is not found", status: 404, change: []func(*rdsdata.ExecuteStatementInput){func(in *rdsdata.ExecuteStatementInput) { in.TransactionId = aws.String("xyz") }}},
	} {
		_, err := c.try(x.sql, x.change...)
		if !isFault(err, x.code, x.says, x.status) {
			t.Errorf("%s: %v, want %s", x.sql, err, x.code)
		}
	}
	for key, want := range map[string]string{"AKAPI": "InvalidSignatureException", "AKNONE": "UnrecognizedClientException"} {
		if _, err := f.sdk(key, "wrong").try("select 1"); !isFault(err, want, "", 403) {
			t.Error(err)
		}
	}
	res, err := http.Post("http://"+f.addr+"/Execute", "application/json", strings.NewReader("{}"))
	if err != nil || res.StatusCode != 403 || res.Header.Get("X-Amzn-Errortype") != "MissingAuthenticationTokenException" {
		t.Error(res, err)
	}
	res.Body.Close()
	// What a call does to its session is gone with it.
	c.do("select set_config('search_path', 'nowhere', false)")
	if out := c.do("show search_path"); strings.Contains(out.Records[0][0].(*types.FieldMemberStringValue).Value, "nowhere") {
		t.Error("a setting stayed")
	}
	f.put(func(db *pooldir.Database) { db.API = nil })
	if _, err := c.try("select 1"); err == nil {
		t.Error("answered without the key api")
	}
}

func isFault(err error, code, says string, status int) bool {
	var e smithy.APIError
	var r interface{ HTTPStatusCode() int }
	return errors.As(err, &e) && e.ErrorCode() == code && strings.Contains(e.ErrorMessage(), says) && errors.As(err, &r) && r.HTTPStatusCode() == status
}

// The API is at the port of PostgreSQL, over TLS too, and beside clients of PostgreSQL.
func TestDataAPIOverTLS(t *testing.T) {
	f, root := secured(t, withAPI)
	pem, err := os.ReadFile(root)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true}, Timeout: 20 * time.Second}
	defer client.CloseIdleConnections()
	c := f.sdk("AKAPI", "s1", func(o *rdsdata.Options) { o.BaseEndpoint, o.HTTPClient = aws.String("https://"+f.addr), client })
	for range 3 {
		if n := c.do("select 41 + 1").Records[0][0].(*types.FieldMemberLongValue).Value; n != 42 {
			t.Error(n)
		}
	}
	if n := one[int](f, f.connect(), "select 1"); n != 1 {
		t.Error(n)
	}
}

// An SDK has one endpoint: it answers for the app's other databases too.
func TestDataAPIOfPeers(t *testing.T) {
	other := begin(t, withAPI, func(db *pooldir.Database) { db.API.Resource += "2" })
	other.exec(other.connect(), "create table only_here (n int)")
	f := over(t, other.server, withAPI, func(db *pooldir.Database) { db.API.Peers = map[string]int{clusterARN + "2": other.db.Port} })
	c := f.sdk("AKAPI", "s1")
	c.do("select 1")
	c.do("select * from only_here", func(in *rdsdata.ExecuteStatementInput) { in.ResourceArn = aws.String(clusterARN + "2") })
	if st := other.stats(); st.Queries == 0 {
		t.Error("the other pool was not asked")
	}
}
