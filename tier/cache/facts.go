package cache

import "time"

// noted is what INFO said of a server, and when.
type noted struct {
	facts facts
	at    time.Time
}

func (c *Cache) noteFacts(at place, f facts) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.told[at] = noted{f, time.Now()}
}
