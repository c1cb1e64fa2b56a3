//go:build !unix

package diskqueue

func isFull(error) bool { return false }
