//go:build !unix

package diskdb

func isFull(error) bool { return false }
