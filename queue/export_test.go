package queue

// Share is share.
func Share(limit int, key string, rank, owners int) int { return share(limit, key, rank, owners) }
