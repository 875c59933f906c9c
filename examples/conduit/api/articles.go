package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// article is a post as its readers see it. Body is left out of lists.
type article struct {
	Slug           string   `json:"slug"`
	Title          string   `json:"title"`
	Description    string   `json:"description"`
	Body           *string  `json:"body,omitempty"`
	TagList        []string `json:"tagList"`
	CreatedAt      stamp    `json:"createdAt"`
	UpdatedAt      stamp    `json:"updatedAt"`
	Favorited      bool     `json:"favorited"`
	FavoritesCount int      `json:"favoritesCount"`
	Author         profile  `json:"author"`
}

// selectArticles reads articles a of authors u for viewer $1.
const selectArticles = `select a.slug, a.title, a.description, a.body, a.tags, a.created, a.updated,
	exists (select from favorites where article = a.id and reader = $1),
	(select count(*) from favorites where article = a.id),
	u.username, u.bio, u.image, exists (select from follows where follower = $1 and followed = u.id)
	from articles a join users u on u.id = a.author `

func scanArticle(row pgx.CollectableRow) (article, error) {
	var a article
	var created, updated time.Time
	err := row.Scan(&a.Slug, &a.Title, &a.Description, &a.Body, &a.TagList, &created, &updated,
		&a.Favorited, &a.FavoritesCount, &a.Author.Username, &a.Author.Bio, &a.Author.Image, &a.Author.Following)
	a.CreatedAt, a.UpdatedAt = stamp(created), stamp(updated)
	return a, err
}

func (a *api) bySlug(ctx context.Context, viewer int64, slug string) (any, error) {
	rows, err := a.db.Query(ctx, selectArticles+`where a.slug = $2`, viewer, slug)
	if err != nil {
		return nil, err
	}
	found, err := pgx.CollectExactlyOneRow(rows, scanArticle)
	return map[string]any{"article": found}, err
}

func (a *api) article(r *http.Request, viewer int64) (any, error) {
	return a.bySlug(r.Context(), viewer, r.PathValue("slug"))
}

// page reads limit (20, at most 100) and offset.
func page(r *http.Request) (limit, offset int) {
	limit, offset = 20, 0
	if n, err := strconv.Atoi(r.FormValue("limit")); err == nil && n > 0 {
		limit = min(n, 100)
	}
	if n, err := strconv.Atoi(r.FormValue("offset")); err == nil && n > 0 {
		offset = n
	}
	return limit, offset
}

// list answers a page of articles for which where holds. Arguments in where begin at $2.
func (a *api) list(r *http.Request, viewer int64, where string, args ...any) (any, error) {
	limit, offset := page(r)
	var count int
	// The viewer is not part of every condition, but always an argument.
	if err := a.db.QueryRow(r.Context(), `select count(*) from articles a where $1::bigint is not null and `+where, append([]any{viewer}, args...)...).Scan(&count); err != nil {
		return nil, err
	}
	rows, err := a.db.Query(r.Context(), selectArticles+fmt.Sprintf(`where %s order by a.created desc, a.id desc limit %d offset %d`, where, limit, offset), append([]any{viewer}, args...)...)
	if err != nil {
		return nil, err
	}
	found, err := pgx.CollectRows(rows, scanArticle)
	if err != nil {
		return nil, err
	}
	for i := range found {
		found[i].Body = nil
	}
	return map[string]any{"articles": found, "articlesCount": count}, nil
}

func (a *api) listArticles(r *http.Request, viewer int64) (any, error) {
	var where []string
	var args []any
	add := func(param, condition string) {
		if v := r.FormValue(param); v != "" {
			args = append(args, v)
			where = append(where, fmt.Sprintf(condition, len(args)+1))
		}
	}
	add("tag", `a.tags @> array[$%d]`)
	add("author", `a.author = (select id from users where username = $%d)`)
	add("favorited", `a.id in (select article from favorites join users on users.id = reader where username = $%d)`)
	if len(where) == 0 {
		where = []string{"true"}
	}
	answer := func() (any, error) { return a.list(r, viewer, strings.Join(where, " and "), args...) }
	if viewer == 0 && r.FormValue("author") == "" && r.FormValue("favorited") == "" {
		return a.cache.get(r.Context(), "articles:"+r.URL.RawQuery, 2*time.Second, answer)
	}
	return answer()
}

func (a *api) feed(r *http.Request, viewer int64) (any, error) {
	return a.list(r, viewer, `a.author in (select followed from follows where follower = $1)`)
}

var notSlug = regexp.MustCompile(`[^a-z0-9]+`)

// slugOf makes an address from a title. The suffix keeps two of one title apart.
func slugOf(title string) string {
	b := make([]byte, 4)
	rand.Read(b)
	base := strings.Trim(notSlug.ReplaceAllString(strings.ToLower(title), "-"), "-")
	return strings.TrimLeft(base+"-"+hex.EncodeToString(b), "-")
}

func (a *api) createArticle(r *http.Request, viewer int64) (any, error) {
	var in struct {
		Title, Description, Body string
		TagList                  []string
	}
	if err := read(r, "article", &in); err != nil {
		return nil, err
	}
	for field, v := range map[string]string{"title": in.Title, "description": in.Description, "body": in.Body} {
		if strings.TrimSpace(v) == "" {
			return nil, invalid(field, "can't be blank")
		}
	}
	tags := cleanTags(in.TagList)
	slug := slugOf(in.Title)
	_, err := a.db.Exec(r.Context(), `insert into articles (slug, author, title, description, body, tags) values ($1, $2, $3, $4, $5, $6)`, slug, viewer, in.Title, in.Description, in.Body, tags)
	if err != nil {
		return nil, unique(err)
	}
	a.cache.forget(r.Context(), "articles:", "tags")
	return a.bySlug(r.Context(), viewer, slug)
}

func cleanTags(in []string) []string {
	out := []string{}
	for _, t := range in {
		if t = strings.TrimSpace(t); t != "" {
			out = append(out, t)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// own says whether an article exists and belongs to the viewer.
func (a *api) own(r *http.Request, viewer int64) error {
	var author int64
	if err := a.db.QueryRow(r.Context(), `select author from articles where slug = $1`, r.PathValue("slug")).Scan(&author); err != nil {
		return err
	}
	if author != viewer {
		return errForbidden
	}
	return nil
}

func (a *api) updateArticle(r *http.Request, viewer int64) (any, error) {
	var in struct {
		Title, Description, Body *string
		TagList                  []string
	}
	if err := read(r, "article", &in); err != nil {
		return nil, err
	}
	if err := a.own(r, viewer); err != nil {
		return nil, err
	}
	slug := r.PathValue("slug")
	fresh := slug
	if in.Title != nil {
		fresh = slugOf(*in.Title)
	}
	var tags []string
	if in.TagList != nil {
		tags = cleanTags(in.TagList)
	}
	_, err := a.db.Exec(r.Context(), `update articles set slug = $2, title = coalesce($3, title), description = coalesce($4, description),
		body = coalesce($5, body), tags = coalesce($6, tags), updated = now() where slug = $1`, slug, fresh, in.Title, in.Description, in.Body, tags)
	if err != nil {
		return nil, unique(err)
	}
	a.cache.forget(r.Context(), "articles:", "tags")
	return a.bySlug(r.Context(), viewer, fresh)
}

func (a *api) deleteArticle(r *http.Request, viewer int64) (any, error) {
	if err := a.own(r, viewer); err != nil {
		return nil, err
	}
	_, err := a.db.Exec(r.Context(), `delete from articles where slug = $1`, r.PathValue("slug"))
	a.cache.forget(r.Context(), "articles:", "tags")
	return json.RawMessage(`{}`), err
}

func (a *api) favorite(r *http.Request, viewer int64) (any, error) {
	var to int64
	err := a.db.QueryRow(r.Context(), `with new as (insert into favorites select $2, id from articles where slug = $1 on conflict do nothing returning article)
		select coalesce((select author from articles join new on id = article), 0)`, r.PathValue("slug"), viewer).Scan(&to)
	if err != nil {
		return nil, err
	}
	a.telling.tell(r.Context(), happening{To: to, By: viewer, Kind: "favorite", Slug: r.PathValue("slug")})
	return a.article(r, viewer)
}

func (a *api) unfavorite(r *http.Request, viewer int64) (any, error) {
	_, err := a.db.Exec(r.Context(), `delete from favorites using articles where slug = $1 and article = id and reader = $2`, r.PathValue("slug"), viewer)
	if err != nil {
		return nil, err
	}
	return a.article(r, viewer)
}

func (a *api) tags(r *http.Request, _ int64) (any, error) {
	return a.cache.get(r.Context(), "tags", 5*time.Second, func() (any, error) {
		rows, err := a.db.Query(r.Context(), `select tag from (select unnest(tags) as tag from articles order by created desc limit 5000) t group by tag order by count(*) desc, tag limit 20`)
		if err != nil {
			return nil, err
		}
		tags, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if tags == nil {
			tags = []string{}
		}
		return map[string]any{"tags": tags}, err
	})
}
