//go:build race

package queuetest

// raceEnabled says that each access costs many times as much.
const raceEnabled = true
