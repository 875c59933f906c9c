package main

import (
	"context"
	"embed"
	"fmt"
	"log"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

//go:embed migrations/*.sql
var migrations embed.FS

// migrate applies the migrations that the database has not seen, each in a transaction, one process at a time.
func migrate(ctx context.Context, db *pgxpool.Pool) error {
	files, err := migrations.ReadDir("migrations")
	if err != nil {
		return err
	}
	return pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `select pg_advisory_xact_lock(20161); create table if not exists migrations (name text primary key, applied timestamptz not null default now())`); err != nil {
			return err
		}
		for _, f := range files {
			tag, err := tx.Exec(ctx, `insert into migrations (name) values ($1) on conflict do nothing`, f.Name())
			if err != nil {
				return err
			}
			if tag.RowsAffected() == 0 {
				continue
			}
			sql, err := migrations.ReadFile("migrations/" + f.Name())
			if err != nil {
				return err
			}
			if _, err := tx.Exec(ctx, string(sql)); err != nil {
				return fmt.Errorf("%s: %w", f.Name(), err)
			}
			log.Printf("applied %s", f.Name())
		}
		return nil
	})
}

// seed fills an empty database with users and articles.
func seed(ctx context.Context, db *pgxpool.Pool) error {
	const users, articles = 50, 3000
	var have int
	if err := db.QueryRow(ctx, `select count(*) from articles`).Scan(&have); err != nil {
		return err
	}
	if have > 0 {
		log.Printf("there are %d articles already", have)
		return nil
	}
	hash, err := hashPassword("conduit")
	if err != nil {
		return err
	}
	r := rand.New(rand.NewPCG(1, 2))
	return pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
		var ids []int64
		for i := range users {
			var id int64
			name := pick(r, firstNames) + fmt.Sprint(i)
			err := tx.QueryRow(ctx, `insert into users (username, email, password, bio) values ($1, $2, $3, $4) returning id`,
				name, name+"@example.com", hash, "Writes about "+pick(r, subjects)+".").Scan(&id)
			if err != nil {
				return err
			}
			ids = append(ids, id)
		}
		rows := make([][]any, articles)
		begun := time.Now().Add(-articles * time.Hour)
		for i := range rows {
			subject, verb := pick(r, subjects), pick(r, verbs)
			title := fmt.Sprintf("How to %s %s", verb, subject)
			tags := []string{pick(r, subjects), pick(r, verbs)}
			slices.Sort(tags)
			at := begun.Add(time.Duration(i) * time.Hour)
			rows[i] = []any{slugOf(title), ids[r.IntN(len(ids))], title, "What " + pick(r, firstNames) + " learned in a year", body(r, verb, subject), slices.Compact(tags), at, at}
		}
		if _, err := tx.CopyFrom(ctx, pgx.Identifier{"articles"}, []string{"slug", "author", "title", "description", "body", "tags", "created", "updated"}, pgx.CopyFromRows(rows)); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `insert into favorites select u.id, a.id from users u, articles a where (u.id * 7919 + a.id * 104729) % 41 = 0;
			insert into follows select a.id, b.id from users a, users b where a.id <> b.id and (a.id * 31 + b.id) % 9 = 0`); err != nil {
			return err
		}
		log.Printf("seeded %d users and %d articles; sign in as any of them with the password conduit", users, articles)
		return nil
	})
}

func pick(r *rand.Rand, from []string) string { return from[r.IntN(len(from))] }

func body(r *rand.Rand, verb, subject string) string {
	text := "# To " + verb + " " + subject + "\n"
	for range 3 + r.IntN(4) {
		text += fmt.Sprintf("\nWhoever wants to %s %s should first %s %s, and then *%s* it again. It took %d tries.\n", verb, subject, pick(r, verbs), pick(r, subjects), pick(r, verbs), 2+r.IntN(40))
	}
	return text
}

var (
	firstNames = []string{"ada", "grace", "alan", "edsger", "barbara", "donald", "margaret", "ken", "frances", "dennis"}
	subjects   = []string{"dragons", "databases", "gardens", "queues", "bicycles", "caches", "bread", "compilers", "telescopes", "kites"}
	verbs      = []string{"train", "repair", "draw", "scale", "measure", "forget", "bake", "name", "paint", "explain"}
)
