package pgproxy

import (
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"strings"

	"tenfold/internal/pgwire"
)

// challenge asks a client to prove that it is user.
func (l *loop) challenge(c *client, s pgwire.Startup, user string) {
	c.login = &login{startup: s}
	x := c.login
	if name, ok := strings.CutSuffix(user, TokenUser); ok {
		if c.tls == nil && !c.near {
			l.dismiss(c, &pgwire.Error{Code: "28000", Message: "a token is taken over TLS only", Hint: "connect with sslmode=require or better"})
			return
		}
		user, x.way = name, byToken
	} else if l.db.MD5 {
		x.way = byMD5
	}
	// Who does not exist is asked for a password too: nobody learns which names there are.
	x.keys = l.p.nobody
	if a := l.accounts[user]; a != nil {
		c.account, x.keys = a, a.keys
	}
	c.phase = phasePassword
	switch x.way {
	case byToken:
		l.reply(c, pgwire.AppendAuth(nil, pgwire.AuthCleartext, ""))
	case byMD5:
		rand.Read(x.salt[:])
		l.reply(c, pgwire.AppendAuth(nil, pgwire.AuthMD5, string(x.salt[:])))
	default:
		offer := pgwire.Mechanism + "\x00\x00"
		if c.tls != nil {
			x.exchange.Binding = c.tls.binding
			offer = pgwire.MechanismPlus + "\x00" + offer
		}
		l.reply(c, pgwire.AppendAuth(nil, pgwire.AuthSASL, offer))
	}
}

// admit counts a client that has proven who it is, unless there are too many.
func (l *loop) admit(c *client) *pgwire.Error {
	a := c.account
	for _, x := range c.fixed {
		if x.name == "application_name" {
			c.app = x.value
		}
	}
	hint := "close some, or raise databases." + l.db.Name + ".proxy.limit"
	if a.user.Limit > 0 && a.clients >= a.user.Limit {
		return &pgwire.Error{Code: "53300", Message: `too many connections for user "` + a.user.Name + `"`, Hint: hint}
	}
	if l.db.ServiceLimit > 0 && !c.admin && a.apps[c.app] >= l.db.ServiceLimit {
		return &pgwire.Error{Code: "53300", Message: `too many connections of application "` + c.app + `"`, Hint: hint + ".service"}
	}
	if a.apps == nil {
		a.apps = map[string]int{}
	}
	a.clients++
	a.apps[c.app]++
	c.counted = true
	return nil
}

// gone counts a client no more.
func (a *account) gone(c *client) {
	if !c.counted {
		return
	}
	c.counted = false
	a.clients--
	if a.apps[c.app]--; a.apps[c.app] == 0 {
		delete(a.apps, c.app)
	}
}

// authenticate takes a message of a client that logs in.
func (l *loop) authenticate(c *client, typ byte, body []byte) {
	if typ != 'p' {
		if typ != 'X' {
			l.dismiss(c, &pgwire.Error{Code: "08P01", Message: "expected a password"})
		} else {
			l.leave(c)
		}
		return
	}
	answer, err := l.proven(c, body)
	switch {
	case errors.Is(err, pgwire.ErrPassword):
		l.stats.Refused++
		l.dismiss(c, l.refusal(c))
	case err != nil:
		l.dismiss(c, &pgwire.Error{Code: "08P01", Message: err.Error(), Hint: "the pool takes SCRAM-SHA-256, over TLS with channel binding too"})
	case c.phase == phasePassword && c.login.way == bySCRAM:
		l.reply(c, answer)
		c.phase = phaseProof
	default:
		l.enter(c, answer)
	}
}

// refusal is what a client is told whose proof does not hold.
func (l *loop) refusal(c *client) *pgwire.Error {
	user := c.login.startup.Get("user")
	e := &pgwire.Error{Code: "28P01", Message: `password authentication failed for user "` + user + `"`, Hint: "the app's own is in DATABASE_URL: tenfold db url"}
	if c.login.way == byToken {
		e.Message = `the token of user "` + user + `" does not hold, or not any more`
		e.Hint = "make another, good for " + TokenLife.String() + ": tenfold db token"
	}
	return e
}

// proven takes a client's proof, or a part of it, and gives what it is answered.
func (l *loop) proven(c *client, body []byte) (answer []byte, err error) {
	x := c.login
	if x.way != bySCRAM {
		said, rest, ok := pgwire.CString(body)
		if !ok || len(rest) > 0 {
			return nil, pgwire.ErrFraming
		}
		a := c.account
		if a == nil {
			a = &account{}
		}
		holds := x.way == byToken && TokenHolds(string(said), l.db.ID, a.user, l.now)
		if x.way == byMD5 {
			right := pgwire.MD5(a.user.Name, a.user.Password, x.salt)
			holds = subtle.ConstantTimeCompare(said, []byte(right)) == 1 && a.user.Password != ""
		}
		if !holds {
			return nil, pgwire.ErrPassword
		}
		return nil, nil
	}
	kind := uint32(pgwire.AuthSASLContinue)
	var text string
	if c.phase == phasePassword {
		text, err = x.exchange.Begin(x.keys, body)
	} else {
		kind = pgwire.AuthSASLFinal
		if text, err = x.exchange.Finish(body); err == nil && c.account == nil {
			err = pgwire.ErrPassword
		}
	}
	return pgwire.AppendAuth(nil, kind, text), err
}
