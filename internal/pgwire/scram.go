package pgwire

import (
	"bytes"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"strconv"
	"strings"

	"golang.org/x/text/secure/precis"
)

// Mechanism is the one without channel binding, MechanismPlus the one that is bound to a TLS channel by
// the server's certificate (tls-server-end-point, RFC 5929 §4.1).
const (
	Mechanism     = "SCRAM-SHA-256"
	MechanismPlus = "SCRAM-SHA-256-PLUS"
)

// bound is the GS2 header of an exchange with channel binding.
const bound = "p=tls-server-end-point,,"

// Iterations of PBKDF2 in verifiers made here, as PostgreSQL has them. Each costs the client at every login.
const Iterations = 4096

// maxIterations bounds what a server may make us compute.
const maxIterations = 1 << 20

// ErrSCRAM is an exchange that breaks the protocol; ErrPassword is a proof that does not fit.
var (
	ErrSCRAM    = errors.New("invalid SCRAM message")
	ErrPassword = errors.New("password does not match")
)

// Keys are what SCRAM derives from a password: costly to make (4096 rounds of HMAC), cheap to use.
type Keys struct {
	Salt       []byte
	Iterations int
	client     [32]byte // ClientKey; zero in a Verifier
	stored     [32]byte
	server     [32]byte
}

// DeriveKeys computes the keys for a password. It takes about a millisecond for each 4096 iterations.
func DeriveKeys(password string, salt []byte, iterations int) *Keys {
	if p, err := precis.OpaqueString.String(password); err == nil {
		password = p
	}
	salted, err := pbkdf2.Key(sha256.New, password, salt, iterations, 32)
	if err != nil { // a salt or key too short for FIPS mode
		panic(err)
	}
	k := &Keys{Salt: salt, Iterations: iterations}
	sum(&k.client, salted, "Client Key")
	k.stored = sha256.Sum256(k.client[:])
	sum(&k.server, salted, "Server Key")
	return k
}

// NewKeys derives keys with a salt of their own.
func NewKeys(password string) *Keys {
	salt := make([]byte, 16)
	rand.Read(salt)
	return DeriveKeys(password, salt, Iterations)
}

func sum(out *[32]byte, key []byte, text string) {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	h.Sum(out[:0])
}

// nonce is 18 random bytes in base64.
func nonce() string {
	var b [18]byte
	rand.Read(b[:])
	return base64.StdEncoding.EncodeToString(b[:])
}

// Exchange is the server's side of one login.
type Exchange struct {
	// Binding is the hash of the certificate that the client was shown; nil where there is no TLS, and then
	// only Mechanism may be offered. With it both must be.
	Binding []byte

	keys  *Keys
	bare  string // the client's first message without its GS2 header
	gs2   string
	first string // the server's
	nonce string
}

// Begin takes the body of SASLInitialResponse and gives what goes into AuthSASLContinue.
func (x *Exchange) Begin(keys *Keys, body []byte) (string, error) {
	mechanism, rest, ok := CString(body)
	if !ok || len(rest) < 4 {
		return "", ErrSCRAM
	}
	msg := string(rest[4:])
	// gs2-header: an authorization identity is not taken. "y" is a client that could bind and believes that
	// we cannot: where we can, somebody between us took the offer out.
	var gs2 string
	switch {
	case string(mechanism) == MechanismPlus && x.Binding != nil:
		gs2 = bound
	case string(mechanism) != Mechanism:
		return "", ErrSCRAM
	case strings.HasPrefix(msg, "y") && x.Binding == nil:
		gs2 = "y,,"
	default:
		gs2 = "n,,"
	}
	if x.bare, ok = strings.CutPrefix(msg, gs2); !ok {
		return "", ErrSCRAM
	}
	x.gs2 = gs2
	if gs2 == bound {
		x.gs2 += string(x.Binding)
	}
	user, after, ok := strings.Cut(x.bare, ",")
	if !ok || !strings.HasPrefix(user, "n=") {
		return "", ErrSCRAM
	}
	theirs, _, _ := strings.Cut(after, ",")
	if !strings.HasPrefix(theirs, "r=") || len(theirs) < 3 || len(theirs) > 256 {
		return "", ErrSCRAM
	}
	x.keys = keys
	x.nonce = theirs[2:] + nonce()
	x.first = "r=" + x.nonce + ",s=" + base64.StdEncoding.EncodeToString(keys.Salt) + ",i=" + strconv.Itoa(keys.Iterations)
	return x.first, nil
}

// Finish takes the body of SASLResponse and gives what goes into AuthSASLFinal.
func (x *Exchange) Finish(body []byte) (string, error) {
	if x.keys == nil {
		return "", ErrSCRAM
	}
	msg := string(body)
	at := strings.LastIndex(msg, ",p=")
	if at < 0 {
		return "", ErrSCRAM
	}
	binding, after, ok := strings.Cut(msg[:at], ",")
	theirs, _, _ := strings.Cut(after, ",")
	if !ok || binding != "c="+base64.StdEncoding.EncodeToString([]byte(x.gs2)) || theirs != "r="+x.nonce {
		return "", ErrSCRAM
	}
	proof, err := base64.StdEncoding.DecodeString(msg[at+3:])
	if err != nil || len(proof) != sha256.Size {
		return "", ErrSCRAM
	}
	auth := x.bare + "," + x.first + "," + msg[:at]
	var signature [32]byte
	sum(&signature, x.keys.stored[:], auth)
	subtle.XORBytes(proof, proof, signature[:])
	if got := sha256.Sum256(proof); subtle.ConstantTimeCompare(got[:], x.keys.stored[:]) != 1 {
		return "", ErrPassword
	}
	sum(&signature, x.keys.server[:], auth)
	return "v=" + base64.StdEncoding.EncodeToString(signature[:]), nil
}

// Login is the client's side of one login at a server.
type Login struct {
	bare  string
	final string // of the server, as it must be
}

// Begin gives the body of SASLInitialResponse.
func (l *Login) Begin() []byte {
	l.bare = "n=,r=" + nonce() // PostgreSQL takes the user from the startup packet
	msg := "n,," + l.bare
	body := append([]byte(Mechanism), 0, 0, 0, 0, byte(len(msg)))
	return append(body, msg...)
}

// Continue takes the data of AuthSASLContinue and gives the body of SASLResponse. keys derives, or
// remembers, the keys for a salt.
func (l *Login) Continue(data []byte, keys func(salt []byte, iterations int) *Keys) ([]byte, error) {
	first := string(data)
	parts := strings.Split(first, ",")
	if len(parts) < 3 || !strings.HasPrefix(parts[0], "r="+l.bare[len("n=,r="):]) || !strings.HasPrefix(parts[1], "s=") || !strings.HasPrefix(parts[2], "i=") {
		return nil, ErrSCRAM
	}
	salt, err := base64.StdEncoding.DecodeString(parts[1][2:])
	n, nerr := strconv.Atoi(parts[2][2:])
	if err != nil || nerr != nil || n < 1 || n > maxIterations || len(salt) == 0 {
		return nil, ErrSCRAM
	}
	k := keys(salt, n)
	bare := "c=biws," + parts[0]
	auth := l.bare + "," + first + "," + bare
	var signature, proof [32]byte
	sum(&signature, k.stored[:], auth)
	subtle.XORBytes(proof[:], k.client[:], signature[:])
	sum(&signature, k.server[:], auth)
	l.final = "v=" + base64.StdEncoding.EncodeToString(signature[:])
	return []byte(bare + ",p=" + base64.StdEncoding.EncodeToString(proof[:])), nil
}

// Finish checks that the server knows the password too.
func (l *Login) Finish(data []byte) error {
	if l.final == "" || !bytes.Equal(data, []byte(l.final)) {
		return ErrPassword
	}
	return nil
}

// Fits says whether k was derived with this salt and count.
func (k *Keys) Fits(salt []byte, iterations int) bool {
	return k != nil && k.Iterations == iterations && bytes.Equal(k.Salt, salt)
}
