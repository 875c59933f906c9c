package enginetest

import (
	"net"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

func TestEnginesAnswerAndEndWithTheTest(t *testing.T) {
	var addresses []string
	t.Run("engines", func(t *testing.T) {
		dsn := Postgres(t)
		c, err := pgx.Connect(t.Context(), dsn)
		if err != nil {
			t.Fatal(err)
		}
		var one int
		if err := c.QueryRow(t.Context(), "select 1").Scan(&one); err != nil || one != 1 {
			t.Fatal(one, err)
		}
		c.Close(t.Context())
		host, _, _ := strings.Cut(strings.TrimPrefix(dsn, "postgresql://test@"), "/")
		redis := Redis(t)
		if got := answer(redis[strings.LastIndexByte(redis, ':')+1:], []byte("SET a 1\r\n")); got != "+" {
			t.Fatal(got)
		}
		addresses = []string{host, redis}
	})
	for _, a := range addresses {
		if c, err := net.Dial("tcp", a); err == nil {
			c.Close()
			t.Errorf("%s still answers", a)
		}
	}
}
