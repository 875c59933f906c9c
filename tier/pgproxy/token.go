package pgproxy

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"tenfold/internal/pooldir"
)

// TokenLife is how long a token lets somebody log in; who is in stays.
const TokenLife = 15 * time.Minute

// TokenUser is behind a user's name when the password is a token: a server has to say how it wants to
// be convinced before it has seen anything else of a client, and a token cannot be proven by SCRAM.
const TokenUser = "+token"

const (
	tokenPrefix = "tft1."
	maxToken    = 2048
)

// claims are what a token says.
type claims struct {
	Database string `json:"d"` // ID
	User     string `json:"u"`
	Until    int64  `json:"e"` // in seconds since 1970
}

// NewToken makes a password for one user of one database that is good until a time. It is signed with
// a key derived from the user's password, so a new password ends all tokens of the old one, and nothing has
// to be kept.
func NewToken(database string, u pooldir.User, until time.Time) string {
	b, _ := json.Marshal(claims{database, u.Name, until.Unix()}) // strings and a number: it does not fail
	body := tokenPrefix + base64.RawURLEncoding.EncodeToString(b)
	return body + "." + base64.RawURLEncoding.EncodeToString(sign(database, u, body))
}

// TokenHolds says whether a token lets a user into a database now.
func TokenHolds(token, database string, u pooldir.User, now time.Time) bool {
	if len(token) > maxToken || u.Password == "" {
		return false
	}
	i := strings.LastIndexByte(token, '.')
	if i < len(tokenPrefix) || !strings.HasPrefix(token, tokenPrefix) {
		return false
	}
	mac, err := base64.RawURLEncoding.Strict().DecodeString(token[i+1:])
	if err != nil || !hmac.Equal(mac, sign(database, u, token[:i])) {
		return false
	}
	var c claims
	b, err := base64.RawURLEncoding.DecodeString(token[len(tokenPrefix):i])
	if err != nil || json.Unmarshal(b, &c) != nil {
		return false
	}
	return c.Database == database && c.User == u.Name && now.Unix() < c.Until
}

func sign(database string, u pooldir.User, body string) []byte {
	key, err := hkdf.Key(sha256.New, []byte(u.Password), []byte(database), "tenfold database token", sha256.Size)
	if err != nil {
		panic(err) // a length that does not exist
	}
	h := hmac.New(sha256.New, key)
	h.Write([]byte(body))
	return h.Sum(nil)
}

// isNear says that a client is on this machine.
func isNear(a unix.Sockaddr) bool {
	switch a := a.(type) {
	case *unix.SockaddrInet4:
		return net.IP(a.Addr[:]).IsLoopback()
	case *unix.SockaddrInet6:
		return net.IP(a.Addr[:]).IsLoopback()
	}
	return false
}
