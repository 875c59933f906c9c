package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"time"

	"github.com/redis/go-redis/v9"
)

// cache keeps answers for seconds. Without a server, or when it fails, answers are made anew.
type cache struct{ redis *redis.Client }

func openCache(url string) (*cache, error) {
	if url == "" {
		return &cache{}, nil
	}
	o, err := redis.ParseURL(url)
	if err != nil {
		return nil, fmt.Errorf("read REDIS_URL: %w", err)
	}
	o.ReadTimeout, o.WriteTimeout, o.DialTimeout, o.MaxRetries = 200*time.Millisecond, 200*time.Millisecond, 200*time.Millisecond, 0
	o.DisableIdentity = true
	return &cache{redis.NewClient(o)}, nil
}

func (c *cache) close() {
	if c.redis != nil {
		c.redis.Close()
	}
}

// get answers from the cache, or asks make and keeps what it says for a while.
func (c *cache) get(ctx context.Context, key string, keep time.Duration, make func() (any, error)) (any, error) {
	if c.redis == nil {
		return make()
	}
	if b, err := c.redis.Get(ctx, key).Bytes(); err == nil {
		return json.RawMessage(b), nil
	}
	v, err := make()
	if err != nil {
		return nil, err
	}
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	if err := c.redis.Set(ctx, key, b, keep).Err(); err != nil && ctx.Err() == nil {
		log.Printf("cache: %v", err)
	}
	return json.RawMessage(b), nil
}

// forget drops what begins with the prefixes, so that a writer sees its own change.
func (c *cache) forget(ctx context.Context, prefixes ...string) {
	if c.redis == nil {
		return
	}
	for _, p := range prefixes {
		keys := c.redis.Scan(ctx, 0, p+"*", 1000).Iterator()
		for keys.Next(ctx) {
			c.redis.Del(ctx, keys.Val())
		}
		if err := keys.Err(); err != nil && ctx.Err() == nil {
			log.Printf("cache: %v", err)
		}
	}
}
