package queue

import (
	"container/heap"
	"time"
)

// timed is what waits for a time and knows its place, + 1, among those that do.
type timed interface {
	wakeAt() time.Time
	where() *int
}

// timeHeap is a heap of them, earliest first.
type timeHeap[T timed] []T

func (h timeHeap[T]) Len() int           { return len(h) }
func (h timeHeap[T]) Less(i, j int) bool { return h[i].wakeAt().Before(h[j].wakeAt()) }
func (h timeHeap[T]) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	*h[i].where(), *h[j].where() = i+1, j+1
}
func (h *timeHeap[T]) Push(x any) {
	*h = append(*h, x.(T))
	*x.(T).where() = len(*h)
}
func (h *timeHeap[T]) Pop() any {
	last := len(*h) - 1
	x := (*h)[last]
	var zero T
	(*h)[last] = zero
	*h = (*h)[:last]
	*x.where() = 0
	return x
}

// wait enters x, or moves it when its time changed.
func (h *timeHeap[T]) wait(x T) {
	if p := *x.where(); p != 0 {
		heap.Fix(h, p-1)
		return
	}
	heap.Push(h, x)
}

// back takes out one whose time has come.
func (h *timeHeap[T]) back(now time.Time) (x T, ok bool) {
	if len(*h) == 0 || now.Before((*h)[0].wakeAt()) {
		return x, false
	}
	return heap.Pop(h).(T), true
}

// first returns when the first of them wakes; zero = none does.
func (h timeHeap[T]) first() time.Time {
	if len(h) == 0 {
		return time.Time{}
	}
	return h[0].wakeAt()
}
