package pgproxy

import (
	"bytes"
	"hash/maphash"
	"math/bits"
	"strings"
	"time"
)

// traits are what a statement may do to the session that runs it.
type traits uint32

// Things that stay in a session when its transaction ends, and so pin a client to its server. Whether
// they really are there is asked of the server afterwards (probe): a trait is only a suspicion.
const (
	leavesTemp     traits = 1 << iota // temporary tables, types or functions
	leavesLock                        // advisory locks of the session
	leavesCursor                      // cursors WITH HOLD
	leavesListen                      // LISTEN
	leavesPrepare                     // PREPARE in SQL
	leavesForever                     // what cannot be asked for: LOAD
	leavesSequence                    // currval and lastval: what nextval said in this session
	setsUnknown                       // set_config of a name that is not a literal

	mayLeave  // anything: DO, CALL
	mayFree   // may end one of the above
	setsNames // class.names may have changed
	resetsAll // RESET ALL
	discards  // DISCARD ALL

	controls // BEGIN, COMMIT, SAVEPOINT, …
	commits  // COMMIT, END, PREPARE TRANSACTION
	rollsTo  // ROLLBACK TO
	writes   // not proven to be free of writes
	deallocs // DEALLOCATE
)

// pinning are the traits that a probe finds or that stay.
const pinning = leavesTemp | leavesLock | leavesCursor | leavesListen | leavesPrepare | leavesForever | leavesSequence | setsUnknown

// touching are the traits after which the server is asked what stayed.
const touching = leavesTemp | leavesLock | leavesCursor | leavesListen | leavesPrepare | mayLeave | setsNames

// class is what one text of SQL may do.
type class struct {
	traits
	// names of the settings that it may change for the session, lower case.
	names []string
	// dealloc is the name that a lone DEALLOCATE frees, as PostgreSQL folds it; "" for ALL.
	dealloc string
	// statements is their count, of which empty ones are none.
	statements int
	// selects is how many of them begin as a query does, readOnly that one begins a transaction which is
	// READ ONLY as a reader can have it; locks, that an advisory lock may be taken.
	selects         int
	readOnly, locks bool
	// form is the same for texts that differ in literals, space and comments only; seen is what is
	// counted of them (seen.look).
	form uint64
	seen *counts
	// keep is how long the text says that its answer may be cached, in a comment; 0: nothing.
	keep time.Duration
}

// formSeed makes forms: they are of this process.
var formSeed = maphash.MakeSeed()

// classify reads SQL: one pass, no parse tree. It errs to the side of more traits.
func classify(sql []byte, backslash bool) class {
	c := classifier{lexer: lexer{sql: sql, backslash: backslash}}
	for c.statement() {
	}
	if c.literal && c.comma {
		c.mix(',')
	}
	return c.class
}

type classifier struct {
	lexer
	class
	kind tokenKind
	text []byte
	// ahead says that kind and text are the next token, not yet consumed.
	ahead bool
	// literal says that the last token of the form was one, comma that one followed: a list of literals
	// is as one, however long.
	literal, comma bool
	// begins says that the statement begins a transaction; only and more, what its words were.
	begins, only, more bool
}

func (c *classifier) advance() bool {
	if c.ahead {
		c.ahead = false
	} else {
		c.kind, c.text = c.next()
		c.digest()
	}
	return c.kind != tokEnd
}

// digest takes a token into the form.
func (c *classifier) digest() {
	switch c.kind {
	case tokEnd:
		return
	case tokString, tokNumber:
		if c.literal && c.comma {
			c.comma = false
			return
		}
		c.literal = true
		c.mix(1)
		return
	case tokPunct:
		if c.text[0] == ',' && c.literal && !c.comma {
			c.comma = true
			return
		}
	}
	if c.comma {
		c.mix(',')
	}
	c.literal, c.comma = false, false
	if len(c.text) == 1 {
		c.mix(uint64(c.text[0]))
	} else {
		c.mix(maphash.Bytes(formSeed, c.text))
	}
}

func (c *classifier) mix(x uint64) {
	c.form = bits.RotateLeft64(c.form, 23) ^ x*0x9e3779b97f4a7c15
	c.form *= 0xff51afd7ed558ccd
}

// word consumes the next token if it is this keyword.
func (c *classifier) word(upper string) bool {
	if c.advance() && c.kind == tokWord && is(c.text, upper) {
		return true
	}
	c.ahead = true
	return false
}

// ident consumes an identifier, folded as PostgreSQL does; "" when there is none.
func (c *classifier) ident() string {
	if c.advance() {
		switch c.kind {
		case tokWord:
			return strings.ToLower(string(c.text))
		case tokQuoted:
			if len(c.text) >= 2 && c.text[0] == '"' {
				return strings.ReplaceAll(string(c.text[1:len(c.text)-1]), `""`, `"`)
			}
		}
	}
	c.ahead = true
	return ""
}

// name consumes a name of a setting, which may have a dot.
func (c *classifier) name() string {
	n := c.ident()
	for n != "" && c.advance() {
		if c.kind == tokPunct && c.text[0] == '.' {
			n += "." + c.ident()
			continue
		}
		c.ahead = true
		break
	}
	return strings.ToLower(n)
}

func (c *classifier) sets(name string) {
	if name == "" {
		return
	}
	c.traits |= setsNames
	for _, n := range c.names {
		if n == name {
			return
		}
	}
	c.names = append(c.names, name)
}

// statement reads one; false at the end.
func (c *classifier) statement() bool {
	if !c.advance() {
		return false
	}
	if c.kind == tokPunct && c.text[0] == ';' {
		return true
	}
	c.statements++
	c.begins, c.only, c.more = false, false, false
	defer func() { c.readOnly = c.readOnly || c.begins && c.only && !c.more }()
	for c.kind == tokPunct && c.text[0] == '(' { // (SELECT …)
		if !c.advance() {
			return false
		}
	}
	if c.kind != tokWord {
		c.traits |= writes
		return c.rest()
	}
	c.verb(c.text)
	return c.rest()
}

// verb reads what a statement's first word says, and as much after it as is needed.
func (c *classifier) verb(v []byte) {
	switch v[0] | 0x20 {
	case 's':
		switch {
		case is(v, "SELECT"):
			c.selects++
			return
		case is(v, "SET"):
			c.set()
			return
		case is(v, "SHOW"):
			return
		case is(v, "START"), is(v, "SAVEPOINT"):
			c.traits |= controls
			c.begins = is(v, "START")
			return
		}
	case 'w':
		if is(v, "WITH") {
			c.selects++
			return
		}
	case 'v':
		if is(v, "VALUES") {
			c.selects++
			return
		}
	case 't':
		if is(v, "TABLE") {
			c.selects++
			return
		}
	case 'b':
		if is(v, "BEGIN") {
			c.traits |= controls
			c.begins = true
			return
		}
	case 'e':
		switch {
		case is(v, "END"):
			c.traits |= controls | commits | mayFree
			return
		case is(v, "EXECUTE"):
			c.traits |= mayFree
		}
	case 'c':
		switch {
		case is(v, "COMMIT"):
			c.traits |= controls | commits | mayFree
			return
		case is(v, "CREATE"):
			c.create()
		case is(v, "CLOSE"):
			c.traits |= mayFree
		case is(v, "CALL"):
			c.traits |= mayLeave
		}
	case 'r':
		switch {
		case is(v, "ROLLBACK"):
			c.traits |= controls | mayFree
			for c.word("WORK") || c.word("TRANSACTION") {
			}
			if c.word("TO") {
				c.traits |= rollsTo
			}
			return
		case is(v, "RELEASE"):
			c.traits |= controls
			return
		case is(v, "RESET"):
			c.reset()
			return
		}
	case 'a':
		if is(v, "ABORT") {
			c.traits |= controls | mayFree
			return
		}
	case 'd':
		switch {
		case is(v, "DO"):
			c.traits |= mayLeave
		case is(v, "DROP"):
			c.traits |= mayFree
		case is(v, "DECLARE"):
			c.declare()
		case is(v, "DISCARD"):
			if c.traits |= mayFree; c.word("ALL") {
				c.traits |= discards
			}
		case is(v, "DEALLOCATE"):
			c.deallocate()
		}
	case 'l':
		switch {
		case is(v, "LISTEN"):
			c.traits |= leavesListen
		case is(v, "LOAD"):
			c.traits |= leavesForever
		}
	case 'u':
		if is(v, "UNLISTEN") {
			c.traits |= mayFree
		}
	case 'p':
		if is(v, "PREPARE") {
			if c.word("TRANSACTION") {
				c.traits |= controls | commits
			} else {
				c.traits |= leavesPrepare
			}
		}
	}
	c.traits |= writes
}

func (c *classifier) deallocate() {
	c.traits |= deallocs | mayFree
	c.word("PREPARE")
	if !c.word("ALL") {
		c.dealloc = c.ident()
	}
}

func (c *classifier) create() {
	if c.word("OR") {
		c.word("REPLACE")
	}
	if !c.word("LOCAL") {
		c.word("GLOBAL")
	}
	if c.word("TEMP") || c.word("TEMPORARY") {
		c.traits |= leavesTemp
	}
}

func (c *classifier) declare() {
	for c.advance() {
		switch {
		case c.kind == tokPunct && c.text[0] == ';':
			c.ahead = true
			return
		case c.kind == tokWord && is(c.text, "HOLD"):
			c.traits |= leavesCursor
		case c.kind == tokWord && is(c.text, "FOR"):
			return
		}
	}
	c.ahead = true
}

func (c *classifier) set() {
	switch {
	case c.word("LOCAL"), c.word("CONSTRAINTS"), c.word("TRANSACTION"):
		return // of the transaction
	}
	if c.word("SESSION") {
		if c.word("CHARACTERISTICS") {
			c.sets("default_transaction_isolation")
			c.sets("default_transaction_read_only")
			c.sets("default_transaction_deferrable")
			return
		}
		if c.word("AUTHORIZATION") {
			c.sets("role")
			c.traits |= leavesForever
			return
		}
	}
	switch {
	case c.word("TIME"):
		c.sets("timezone")
	case c.word("NAMES"):
		c.sets("client_encoding")
	case c.word("SCHEMA"):
		c.sets("search_path")
	case c.word("XML"):
		c.sets("xmloption")
	case c.word("SEED"):
	default:
		c.sets(c.name())
	}
}

func (c *classifier) reset() {
	switch {
	case c.word("ALL"):
		c.traits |= resetsAll | setsNames
	case c.word("TIME"):
		c.sets("timezone")
	case c.word("SESSION"):
		c.sets("role")
	default:
		c.sets(c.name())
	}
}

// rest looks through the remainder of a statement for what counts anywhere in it; false at the end.
func (c *classifier) rest() bool {
	var last []byte // the word before, which is a function's name if '(' follows
	quoted := false
	for c.advance() {
		switch c.kind {
		case tokPunct:
			switch c.text[0] {
			case ';':
				return true
			case '(':
				if last != nil {
					c.function(last, quoted)
				}
			}
			last = nil
		case tokWord:
			last, quoted = c.text, false
			c.keyword(c.text)
		case tokQuoted:
			last, quoted = bytes.Trim(c.text, `"`), true
		default:
			last = nil
		}
	}
	return false
}

// keyword notes a word that matters wherever it stands.
func (c *classifier) keyword(w []byte) {
	if c.begins {
		c.only = c.only || is(w, "ONLY")
		c.more = c.more || is(w, "WRITE") || is(w, "SERIALIZABLE")
	}
	switch len(w) {
	case 3:
		if is(w, "FOR") { // FOR UPDATE, FOR SHARE; in SUBSTRING(x FOR 2) it costs a retry
			c.traits |= writes
		}
	case 4:
		if is(w, "INTO") {
			c.traits |= writes
			if c.word("TEMP") || c.word("TEMPORARY") {
				c.traits |= leavesTemp
			} else if (c.word("LOCAL") || c.word("GLOBAL")) && (c.word("TEMP") || c.word("TEMPORARY")) {
				c.traits |= leavesTemp
			}
		}
	case 5:
		if is(w, "MERGE") {
			c.traits |= writes
		}
	case 6:
		if is(w, "INSERT") || is(w, "UPDATE") || is(w, "DELETE") {
			c.traits |= writes
		}
	case 7:
		if is(w, "PG_TEMP") && c.traits&writes != 0 {
			c.traits |= leavesTemp
		}
	}
}

// function notes a call. What is not known to be harmless may write.
func (c *classifier) function(name []byte, quoted bool) {
	var buf [40]byte
	if len(name) > len(buf) {
		c.traits |= writes
		return
	}
	n := buf[:len(name)]
	for i, b := range name {
		if b >= 'A' && b <= 'Z' && !quoted {
			b |= 0x20
		}
		n[i] = b
	}
	if harmless[string(n)] {
		return
	}
	c.traits |= writes
	if strings.Contains(string(n), "advisory") {
		c.locks = true
	}
	switch string(n) {
	case "pg_advisory_lock", "pg_advisory_lock_shared", "pg_try_advisory_lock", "pg_try_advisory_lock_shared":
		c.traits |= leavesLock
	case "pg_advisory_unlock", "pg_advisory_unlock_shared", "pg_advisory_unlock_all":
		c.traits |= mayFree
	case "currval", "lastval":
		c.traits |= leavesSequence
	case "set_config":
		c.setConfig()
	}
}

// setConfig reads the arguments of set_config: 'name', value, is_local.
func (c *classifier) setConfig() {
	at := c.pos
	defer func() { c.pos, c.ahead = at, false }() // rest goes on within the parentheses
	c.ahead = false
	if !c.advance() || c.kind != tokString || c.text[0] != '\'' {
		c.traits |= setsUnknown
		return
	}
	name := strings.ToLower(strings.Trim(string(c.text), "'"))
	if !c.advance() || c.kind != tokPunct || c.text[0] != ',' {
		c.traits |= setsUnknown
		return
	}
	depth, commas := 1, 1
	for depth > 0 && c.advance() {
		if c.kind != tokPunct {
			if depth == 1 && commas == 2 && c.kind == tokWord && is(c.text, "TRUE") {
				return // of the transaction
			}
			continue
		}
		switch c.text[0] {
		case '(', '[':
			depth++
		case ')', ']':
			depth--
		case ',':
			if depth == 1 {
				commas++
			}
		}
	}
	c.sets(name)
}

// harmless are what may stand before '(' in a statement that writes nothing: keywords and functions of
// PostgreSQL that neither write nor depend on the session.
var harmless = func() map[string]bool {
	m := map[string]bool{}
	for _, w := range strings.Fields(`
		in any all some exists and or not when then else case as on using values from where having select
		distinct by over filter within union except intersect limit offset array row cast extract interval
		numeric decimal varchar char character bit time timestamp timestamptz float materialized lateral join is
		between like ilike count sum avg min max coalesce nullif greatest least lower upper length char_length
		octet_length trim btrim ltrim rtrim substr substring position replace left right lpad rpad concat
		concat_ws split_part string_agg array_agg array_length array_position array_to_string string_to_array
		unnest cardinality abs round ceil ceiling floor mod power sqrt sign trunc now date date_trunc date_part
		age to_char to_date to_timestamp to_number make_date make_interval justify_days md5 encode decode
		row_number rank dense_rank ntile lag lead first_value last_value nth_value bool_and bool_or every
		json_agg jsonb_agg json_build_object jsonb_build_object json_build_array jsonb_build_array
		json_object_agg jsonb_object_agg row_to_json to_json to_jsonb json_array_elements jsonb_array_elements
		jsonb_array_length json_extract_path_text jsonb_extract_path_text jsonb_set generate_series format
		quote_ident quote_literal initcap reverse repeat strpos starts_with stddev variance percentile_cont
		percentile_disc mode ts_rank to_tsvector to_tsquery plainto_tsquery websearch_to_tsquery similarity
		version current_setting pg_typeof`) {
		m[w] = true
	}
	return m
}()
