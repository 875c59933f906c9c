package pgproxy

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"tenfold/internal/pgwire"
)

// adminName is the database that is the pool itself: psql into it shows what the pool does. An app's own
// database of this name comes first.
const adminName = "tenfold"

// administrate answers a client of the admin database: simple queries, all answers text.
func (l *loop) administrate(c *client, typ byte, msg []byte) {
	switch typ {
	case 'Q':
		out := l.show(string(sqlOf(msg[pgwire.HeaderSize:])))
		l.reply(c, pgwire.AppendReady(out, 'I'))
	case 'S':
		c.local = false
		l.reply(c, pgwire.AppendReady(nil, 'I'))
	case 'H', 'd', 'c', 'f':
	default:
		if !c.local { // once; what follows is dropped up to Sync
			l.answerError(c, typ, &pgwire.Error{Code: "0A000", Message: "the admin database takes simple queries only", Hint: "ask with psql, or with default_query_exec_mode=simple_protocol"})
		}
	}
}

// A sheet is the answer to a SHOW.
type sheet struct {
	about string
	make  func(l *loop) (columns []string, rows [][]string)
}

// sheets are what can be asked for. HELP is beside them: it lists them.
var sheets = map[string]sheet{
	"STATEMENTS": {"statements by fingerprint, most time first", (*loop).showStatements},
	"POOLS":      {"users' connections to the primary and to readers", (*loop).showPools},
	"CACHE":      {"the query cache, and by statement what it did or why it may not", (*loop).showCache},
	"CLIENTS":    {"who is connected, and what it waits for", (*loop).showClients},
	"SERVERS":    {"connections to servers", (*loop).showServers},
	"SLOW":       {"the last statements that took long, and the request that each was for", (*loop).showSlow},
	"PINS":       {"why clients keep their connection, by statement", (*loop).showPins},
	"STATS":      {"counts since the pool began", (*loop).showStats},
}

// show answers one query.
func (l *loop) show(sql string) []byte {
	words := strings.Fields(strings.TrimRight(sql, "; \t\r\n"))
	switch {
	case len(words) == 0:
		return pgwire.Append(nil, 'I')
	case len(words) == 1 && strings.EqualFold(words[0], "HELP"), len(words) == 2 && strings.EqualFold(words[0], "SHOW") && strings.EqualFold(words[1], "HELP"):
		var rows [][]string
		for _, name := range slices.Sorted(maps.Keys(sheets)) {
			rows = append(rows, []string{"SHOW " + name, sheets[name].about})
		}
		return answerSheet([]string{"command", "shows"}, rows)
	case len(words) == 2 && strings.EqualFold(words[0], "SHOW"):
		if s, ok := sheets[strings.ToUpper(words[1])]; ok {
			return answerSheet(s.make(l))
		}
	}
	return pgwire.AppendError(nil, &pgwire.Error{Severity: "ERROR", Code: "42601", Message: "the pool does not know this command", Hint: "SHOW HELP lists what it knows"})
}

func answerSheet(columns []string, rows [][]string) []byte {
	out := pgwire.AppendColumns(nil, columns...)
	for _, r := range rows {
		out = pgwire.AppendRow(out, r...)
	}
	return pgwire.Append(out, 'C', "SHOW "+strconv.Itoa(len(rows))+"\x00")
}

func (l *loop) showStatements() (columns []string, rows [][]string) {
	for _, s := range l.seen.all() {
		mean := time.Duration(0)
		if s.Calls > 0 {
			mean = s.Executed / time.Duration(s.Calls)
		}
		rows = append(rows, []string{s.Fingerprint, number(s.Calls), listed(s.Errors), number(s.Rows), number(s.Received), number(s.Sent),
			millis(s.Waited), millis(s.Executed), millis(mean), millis(s.Longest), listed(s.Pins), s.Trace, s.Query})
	}
	return []string{"fingerprint", "calls", "errors", "rows", "received", "sent", "wait_ms", "exec_ms", "mean_ms", "max_ms", "pins", "traceparent", "query"}, rows
}

func (l *loop) showCache() (columns []string, rows [][]string) {
	columns = []string{"fingerprint", "hits", "misses", "entries", "bytes", "stored", "invalidations", "evicted", "dropped_whole", "state", "query"}
	v := l.cacheView()
	if v == nil {
		return columns, [][]string{{"", "0", "0", "0", "0", "0", "0", "0", "0", "off: databases.*.proxy.cache is false", ""}}
	}
	rows = append(rows, []string{"", number(v.Hits), number(v.Misses), strconv.Itoa(v.Entries), strconv.FormatInt(v.Bytes, 10), number(v.Stored), number(v.Invalidations), number(v.Evicted), number(v.Drops), v.State, ""})
	for _, s := range l.seen.all() {
		if s.Hits > 0 || s.Misses > 0 || s.Uncached != "" {
			rows = append(rows, []string{s.Fingerprint, number(s.Hits), number(s.Misses), "", "", "", "", "", "", s.Uncached, s.Query})
		}
	}
	return columns, rows
}

func (l *loop) showPools() (columns []string, rows [][]string) {
	for _, g := range l.groups() {
		rows = append(rows, []string{g.User, role(g), strconv.Itoa(g.Clients), strconv.Itoa(g.Servers), strconv.Itoa(g.Busy), strconv.Itoa(g.Pinned), strconv.Itoa(g.Waiting), millis(g.Oldest), strconv.Itoa(l.db.Pool), strconv.Itoa(g.AtOnce)})
	}
	return []string{"user", "to", "clients", "servers", "busy", "pinned", "waiting", "oldest_wait_ms", "limit", "at_once"}, rows
}

func (l *loop) showClients() (columns []string, rows [][]string) {
	for _, x := range l.conns {
		c := x.client
		if c == nil {
			continue
		}
		user, state, wait, server := "", "idle", "", ""
		if c.account != nil {
			user = c.account.user.Name
		}
		switch {
		case c.phase != phaseReady:
			state = "logging in"
		case c.admin:
			state = "admin"
		case c.inQueue != nil:
			state, wait = "waiting", millis(l.now.Sub(c.since))
		case c.server != nil && c.server.begun:
			state = "active"
		case c.server != nil && c.server.tx != 'I':
			state = "in a transaction"
		case c.pins != 0:
			state = "pinned"
		}
		if c.server != nil {
			server = strconv.FormatUint(uint64(c.server.pid), 10)
		}
		app, _ := c.settings.get("application_name")
		rows = append(rows, []string{strconv.FormatUint(uint64(c.pid), 10), user, app, state, wait, server, l.pinsOf(c), strconv.Itoa(len(c.statements)), c.tls.version()})
	}
	return []string{"pid", "user", "application_name", "state", "wait_ms", "server_pid", "pins", "statements", "tls"}, rows
}

func (l *loop) showServers() (columns []string, rows [][]string) {
	for _, x := range l.conns {
		s := x.server
		if s == nil {
			continue
		}
		to, state, client := "reader", "idle", ""
		if s.primary {
			to = "primary"
		}
		switch {
		case s.retired:
			state = "ends"
		case s.begun || s.pending() > 0:
			state = "active"
		case s.tx != 'I':
			state = "in a transaction"
		case s.client != nil:
			state = "pinned"
		}
		if s.client != nil {
			client = strconv.FormatUint(uint64(s.client.pid), 10)
		}
		rows = append(rows, []string{strconv.FormatUint(uint64(s.pid), 10), s.pool.account.user.Name, s.addr, to, state, client, strconv.Itoa(len(s.statements))})
	}
	return []string{"pid", "user", "address", "to", "state", "client_pid", "statements"}, rows
}

func (l *loop) showSlow() (columns []string, rows [][]string) {
	for _, s := range l.slow.all() {
		rows = append(rows, []string{s.At.UTC().Format(time.RFC3339Nano), millis(s.Waited), millis(s.Took), number(s.Rows), s.Code, s.User, s.Application, s.Trace, s.Fingerprint, s.Query})
	}
	return []string{"at", "wait_ms", "exec_ms", "rows", "error", "user", "application_name", "traceparent", "fingerprint", "query"}, rows
}

func (l *loop) showPins() (columns []string, rows [][]string) {
	for _, p := range l.pinsSeen(l.seen.all()) {
		rows = append(rows, []string{p.Reason, strconv.Itoa(p.Now), number(p.Total), p.Fingerprint, p.Query})
	}
	return []string{"reason", "now", "total", "fingerprint", "query"}, rows
}

func (l *loop) showStats() (columns []string, rows [][]string) {
	s := &l.stats
	for _, x := range []struct {
		name string
		n    uint64
	}{
		{"queries", s.Queries}, {"transactions", s.Transactions}, {"errors", s.Errors}, {"refused_logins", s.Refused}, {"failed_tls", s.Unshaken}, {"waited_in_vain", s.TimedOut}, {"cancelled", s.Cancelled},
		{"reads_at_readers", s.Split}, {"reads_not_at_readers", s.Unsplit}, {"retried", s.Retried}, {"sent_ahead", s.Ahead}, {"taken_back", s.TakenBack}, {"settings_replayed", s.Replayed}, {"sessions_cleaned", s.Cleaned}, {"statements_prepared", s.Parsed}, {"servers_opened", s.Opened}, {"servers_closed", s.Closed},
	} {
		rows = append(rows, []string{x.name, number(x.n)})
	}
	return []string{"what", "count"}, rows
}

func number(n uint64) string { return strconv.FormatUint(n, 10) }

func millis(d time.Duration) string { return fmt.Sprintf("%.3f", float64(d)/float64(time.Millisecond)) }

// listed writes counts by name, most first: "23: 2, 40: 1".
func listed(m map[string]uint64) string {
	names := slices.SortedFunc(maps.Keys(m), func(a, b string) int { return cmp.Or(cmp.Compare(m[b], m[a]), cmp.Compare(a, b)) })
	for i, n := range names {
		names[i] = n + ": " + number(m[n])
	}
	return strings.Join(names, ", ")
}
