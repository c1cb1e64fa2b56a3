package queue

// Share is share.
func Share(limit int, key string, rank, owners int) int { return share(limit, key, rank, owners) }

// Fix gives each site n deliveries at one time, whatever it answers.
func Fix(q *Queue, n int) { q.PerSite, q.fixed = n, true }

// Keys returns how many keys l remembers.
func (l *Rates) Keys() int { return len(l.keys) }
