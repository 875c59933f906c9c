package main

import (
	"context"
	"log"

	"github.com/jackc/pgx/v5/pgxpool"
)

// nightly writes down how much there is, a row a day.
func nightly(ctx context.Context, db *pgxpool.Pool) error {
	var users, articles, comments int64
	err := db.QueryRow(ctx, `insert into days select current_date, (select count(*) from users), (select count(*) from articles), (select count(*) from comments)
		on conflict (day) do update set users = excluded.users, articles = excluded.articles, comments = excluded.comments
		returning users, articles, comments`).Scan(&users, &articles, &comments)
	if err != nil {
		return err
	}
	log.Printf("today: %d users, %d articles, %d comments", users, articles, comments)
	return nil
}
