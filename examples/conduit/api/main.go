// Command api is the backend of Conduit. It reads its configuration from the environment: DATABASE_URL, JWT_SECRET,
// PORT; and where they are set REDIS_URL, SESSIONS_TABLE, INBOX_TABLE, NOTICES_QUEUE_URL, PICTURES_BUCKET and what AWS'
// SDK reads.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/jackc/pgx/v5/pgxpool"
)

func main() {
	log.SetFlags(0)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	command := "serve"
	if len(os.Args) > 1 {
		command = os.Args[1]
	}
	if err := run(ctx, command); err != nil {
		log.Fatalf("conduit: %s: %v", command, err)
	}
}

func run(ctx context.Context, command string) error {
	url := os.Getenv("DATABASE_URL")
	if url == "" {
		return errors.New("DATABASE_URL is not set")
	}
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		return fmt.Errorf("read DATABASE_URL: %w", err)
	}
	cfg.MaxConns = 20
	db, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return fmt.Errorf("open database: %w", err)
	}
	defer db.Close()
	switch command {
	case "migrate":
		return migrate(ctx, db)
	case "seed":
		return seed(ctx, db)
	case "nightly":
		return nightly(ctx, db)
	}
	a := &api{db: db}
	if err := a.openStores(ctx); err != nil {
		return err
	}
	switch command {
	case "serve":
		return serve(ctx, a)
	case "notify":
		lambda.StartWithOptions(a.notify, lambda.WithContext(ctx))
		return nil
	}
	return errors.New("no such command: use serve, migrate, seed, nightly or notify")
}

// openStores connects to the tables, the queue and the bucket that the environment names.
func (a *api) openStores(ctx context.Context) error {
	a.sessions.table, a.inbox.table, a.telling.url = os.Getenv("SESSIONS_TABLE"), os.Getenv("INBOX_TABLE"), os.Getenv("NOTICES_QUEUE_URL")
	a.pictures.bucket = os.Getenv("PICTURES_BUCKET")
	if a.sessions.table+a.inbox.table+a.telling.url+a.pictures.bucket == "" {
		return nil
	}
	cfg, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		return fmt.Errorf("read AWS_*: %w", err)
	}
	if a.sessions.table != "" {
		a.sessions.db = dynamodb.NewFromConfig(cfg)
	}
	if a.inbox.table != "" {
		a.inbox.db = dynamodb.NewFromConfig(cfg)
	}
	if a.telling.url != "" {
		a.telling.queue = sqs.NewFromConfig(cfg)
	}
	if a.pictures.bucket != "" {
		a.pictures.sign = s3.NewPresignClient(s3.NewFromConfig(cfg))
	}
	return nil
}

func serve(ctx context.Context, a *api) error {
	secret := os.Getenv("JWT_SECRET")
	if secret == "" {
		return errors.New("JWT_SECRET is not set")
	}
	cache, err := openCache(os.Getenv("REDIS_URL"))
	if err != nil {
		return err
	}
	defer cache.close()
	a.cache, a.key = cache, []byte(secret)
	if err := a.db.Ping(ctx); err != nil {
		return fmt.Errorf("reach database: %w", err)
	}
	port := os.Getenv("PORT")
	if port == "" {
		port = "3000"
	}
	l, err := net.Listen("tcp", "127.0.0.1:"+port)
	if err != nil {
		return err
	}
	s := &http.Server{Handler: a.routes(), ReadHeaderTimeout: 5 * time.Second, IdleTimeout: 2 * time.Minute}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	log.Printf("listening on %s", l.Addr())
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	return s.Shutdown(grace)
}
