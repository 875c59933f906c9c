package main

import (
	"encoding/json"
	"net/http"
	"strings"

	"golang.org/x/crypto/bcrypt"
)

// user is the signed-in user's own view.
type user struct {
	Email    string  `json:"email"`
	Token    string  `json:"token"`
	Username string  `json:"username"`
	Bio      *string `json:"bio"`
	Image    *string `json:"image"`
}

// profile is what others see of a user.
type profile struct {
	Username  string  `json:"username"`
	Bio       *string `json:"bio"`
	Image     *string `json:"image"`
	Following bool    `json:"following"`
}

func (a *api) user(r *http.Request, id int64) (any, error) {
	var u user
	err := a.db.QueryRow(r.Context(), `select email, username, bio, image from users where id = $1`, id).Scan(&u.Email, &u.Username, &u.Bio, &u.Image)
	if err != nil {
		return nil, err
	}
	session := sessionOf(r)
	if session == "" {
		if session, err = a.sessions.begin(r.Context(), id); err != nil {
			return nil, err
		}
	}
	if u.Token, err = a.token(id, session); err != nil {
		return nil, err
	}
	return map[string]any{"user": u}, nil
}

func (a *api) register(r *http.Request, _ int64) (any, error) {
	var in struct{ Username, Email, Password string }
	if err := read(r, "user", &in); err != nil {
		return nil, err
	}
	for field, v := range map[string]string{"username": in.Username, "email": in.Email, "password": in.Password} {
		if strings.TrimSpace(v) == "" {
			return nil, invalid(field, "can't be blank")
		}
	}
	hash, err := hashPassword(in.Password)
	if err != nil {
		return nil, err
	}
	var id int64
	err = a.db.QueryRow(r.Context(), `insert into users (username, email, password) values ($1, $2, $3) returning id`, in.Username, strings.ToLower(in.Email), hash).Scan(&id)
	if err != nil {
		return nil, unique(err)
	}
	return a.user(r, id)
}

func hashPassword(p string) ([]byte, error) {
	if len(p) > 72 {
		return nil, invalid("password", "is longer than 72 bytes")
	}
	return bcrypt.GenerateFromPassword([]byte(p), bcrypt.DefaultCost)
}

func (a *api) login(r *http.Request, _ int64) (any, error) {
	var in struct{ Email, Password string }
	if err := read(r, "user", &in); err != nil {
		return nil, err
	}
	var id int64
	var hash []byte
	err := a.db.QueryRow(r.Context(), `select id, password from users where email = $1`, strings.ToLower(in.Email)).Scan(&id, &hash)
	if err != nil || bcrypt.CompareHashAndPassword(hash, []byte(in.Password)) != nil {
		return nil, invalid("email or password", "is invalid")
	}
	return a.user(r, id)
}

func (a *api) currentUser(r *http.Request, viewer int64) (any, error) { return a.user(r, viewer) }

// logout ends the session that the request is of: its token is worth nothing from then on.
func (a *api) logout(r *http.Request, _ int64) (any, error) {
	return json.RawMessage(`{}`), a.sessions.end(r.Context(), sessionOf(r))
}

func (a *api) updateUser(r *http.Request, viewer int64) (any, error) {
	var in struct{ Username, Email, Password, Bio, Image *string }
	if err := read(r, "user", &in); err != nil {
		return nil, err
	}
	var hash []byte
	if in.Password != nil && *in.Password != "" {
		var err error
		if hash, err = hashPassword(*in.Password); err != nil {
			return nil, err
		}
	}
	if in.Email != nil {
		lower := strings.ToLower(*in.Email)
		in.Email = &lower
	}
	_, err := a.db.Exec(r.Context(), `update users set username = coalesce($2, username), email = coalesce($3, email),
		password = coalesce($4, password), bio = coalesce($5, bio), image = coalesce($6, image) where id = $1`,
		viewer, in.Username, in.Email, hash, in.Bio, in.Image)
	if err != nil {
		return nil, unique(err)
	}
	return a.user(r, viewer)
}

func (a *api) profile(r *http.Request, viewer int64) (any, error) {
	var p profile
	err := a.db.QueryRow(r.Context(), `select username, bio, image, exists (select from follows where follower = $2 and followed = id)
		from users where username = $1`, r.PathValue("username"), viewer).Scan(&p.Username, &p.Bio, &p.Image, &p.Following)
	return map[string]any{"profile": p}, err
}

func (a *api) follow(r *http.Request, viewer int64) (any, error) {
	var followed int64
	err := a.db.QueryRow(r.Context(), `with new as (insert into follows select $2, id from users where username = $1 and id <> $2 on conflict do nothing returning followed)
		select coalesce((select followed from new), 0)`, r.PathValue("username"), viewer).Scan(&followed)
	if err != nil {
		return nil, err
	}
	if followed != 0 {
		a.telling.tell(r.Context(), happening{To: followed, By: viewer, Kind: "follow"})
	}
	return a.profile(r, viewer)
}

func (a *api) unfollow(r *http.Request, viewer int64) (any, error) {
	_, err := a.db.Exec(r.Context(), `delete from follows using users where username = $1 and followed = id and follower = $2`, r.PathValue("username"), viewer)
	if err != nil {
		return nil, err
	}
	return a.profile(r, viewer)
}
