package pgwire

import (
	"crypto/md5"
	"encoding/hex"
)

// MD5 is the answer to AuthMD5: what PostgreSQL had before SCRAM. Whoever sees it can try passwords at
// great speed, so it is for clients that know nothing better.
func MD5(user, password string, salt [4]byte) string {
	inner := md5.Sum([]byte(password + user))
	outer := md5.Sum(append([]byte(hex.EncodeToString(inner[:])), salt[:]...))
	return "md5" + hex.EncodeToString(outer[:])
}
