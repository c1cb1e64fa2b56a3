package queue

import "time"

// lane is a Lane with something due, or with deliveries under way. Lanes that
// are neither are not in memory.
type lane struct {
	key      Lane
	site     *site
	tenant   *tenant
	state    laneState
	inflight int
	quantum  int       // entries left of its turn
	ask      int       // how many entries to lease at most; doubled while it has them
	group    string    // what its site was found to be called
	again    time.Time // over its rate until then
	place    int       // in scheduler.slowLanes + 1
}

func (l *lane) wakeAt() time.Time { return l.again }
func (l *lane) where() *int       { return &l.place }

type laneState uint8

const (
	laneIdle    laneState = iota // nothing due is known
	laneGroup                    // its site is being looked up
	laneReady                    // in its tenant's queue, or the tenant's current one
	laneParked                   // in its site's queue
	laneFull                     // as many under way as it may have
	laneLeasing                  // entries are being leased
	laneSlow                     // over its rate
)

// quantum is how many entries a lane may start in a row before the next
// lane, and the next tenant, has its turn: enough to use a connection.
const quantum = 16

// tenant takes turns with the others; its lanes take turns with each other.
type tenant struct {
	name     string
	ready    classes
	current  *lane // in the middle of its turn
	lanes    int   // in memory
	inflight int
	most     int       // deliveries at one time: this queue's share
	again    time.Time // over its rate until then
	place    int       // in scheduler.slowTenants + 1
	waiting  bool      // for its turn
	begun    bool      // its turn
	credit   int       // entries left of its turn
}

func (t *tenant) wakeAt() time.Time { return t.again }
func (t *tenant) where() *int       { return &t.place }

// classes are queues of lanes, one for each priority, highest first.
type classes []*class

type class struct {
	priority int8
	lanes    []*lane
	head     int
	passed   int // how often a higher class went first
}

// patience is how often a class is passed over before it has a turn.
const patience = 8

func (c *classes) push(l *lane) {
	i := 0
	for ; i < len(*c); i++ {
		if p := (*c)[i].priority; p == l.key.Priority {
			(*c)[i].lanes = append((*c)[i].lanes, l)
			return
		} else if p < l.key.Priority {
			break
		}
	}
	*c = append(*c, nil)
	copy((*c)[i+1:], (*c)[i:])
	(*c)[i] = &class{priority: l.key.Priority, lanes: []*lane{l}}
}

func (c classes) empty() bool { return len(c) == 0 }

// above reports whether a lane of a higher priority waits.
func (c classes) above(priority int8) bool { return len(c) > 0 && c[0].priority > priority }

// pop returns the lane whose turn it is, nil when there is none.
func (c *classes) pop() *lane {
	if len(*c) == 0 {
		return nil
	}
	chosen := 0
	for i, k := range (*c)[1:] {
		if k.passed++; k.passed >= patience {
			chosen = i + 1
		}
	}
	k := (*c)[chosen]
	k.passed = 0
	l := k.lanes[k.head]
	k.lanes[k.head] = nil
	k.head++
	switch {
	case k.head == len(k.lanes):
		*c = append((*c)[:chosen], (*c)[chosen+1:]...)
	case k.head > 64 && k.head > len(k.lanes)/2:
		k.lanes = append([]*lane(nil), k.lanes[k.head:]...)
		k.head = 0
	}
	return l
}
