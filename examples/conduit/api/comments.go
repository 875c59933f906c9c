package main

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// comment is a reader's remark on an article.
type comment struct {
	ID        int64   `json:"id"`
	CreatedAt stamp   `json:"createdAt"`
	UpdatedAt stamp   `json:"updatedAt"`
	Body      string  `json:"body"`
	Author    profile `json:"author"`
}

const selectComments = `select c.id, c.created, c.updated, c.body, u.username, u.bio, u.image,
	exists (select from follows where follower = $1 and followed = u.id)
	from comments c join users u on u.id = c.author join articles a on a.id = c.article `

func scanComment(row pgx.CollectableRow) (comment, error) {
	var c comment
	var created, updated time.Time
	err := row.Scan(&c.ID, &created, &updated, &c.Body, &c.Author.Username, &c.Author.Bio, &c.Author.Image, &c.Author.Following)
	c.CreatedAt, c.UpdatedAt = stamp(created), stamp(updated)
	return c, err
}

func (a *api) comments(r *http.Request, viewer int64) (any, error) {
	rows, err := a.db.Query(r.Context(), selectComments+`where a.slug = $2 order by c.created desc`, viewer, r.PathValue("slug"))
	if err != nil {
		return nil, err
	}
	found, err := pgx.CollectRows(rows, scanComment)
	if found == nil {
		found = []comment{}
	}
	return map[string]any{"comments": found}, err
}

func (a *api) addComment(r *http.Request, viewer int64) (any, error) {
	var in struct{ Body string }
	if err := read(r, "comment", &in); err != nil {
		return nil, err
	}
	if strings.TrimSpace(in.Body) == "" {
		return nil, invalid("body", "can't be blank")
	}
	var id, to int64
	err := a.db.QueryRow(r.Context(), `insert into comments (article, author, body) select id, $2, $3 from articles where slug = $1
		returning id, (select author from articles where id = article)`, r.PathValue("slug"), viewer, in.Body).Scan(&id, &to)
	if err != nil {
		return nil, err
	}
	a.telling.tell(r.Context(), happening{To: to, By: viewer, Kind: "comment", Slug: r.PathValue("slug")})
	rows, err := a.db.Query(r.Context(), selectComments+`where c.id = $2`, viewer, id)
	if err != nil {
		return nil, err
	}
	c, err := pgx.CollectExactlyOneRow(rows, scanComment)
	return map[string]any{"comment": c}, err
}

func (a *api) deleteComment(r *http.Request, viewer int64) (any, error) {
	id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
	if err != nil {
		return nil, errNotFound
	}
	var author int64
	if err := a.db.QueryRow(r.Context(), `select author from comments where id = $1`, id).Scan(&author); err != nil {
		return nil, err
	}
	if author != viewer {
		return nil, errForbidden
	}
	_, err = a.db.Exec(r.Context(), `delete from comments where id = $1`, id)
	return json.RawMessage(`{}`), err
}
