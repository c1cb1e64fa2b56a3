package pop3

import "strings"

// Names of capabilities (RFC 2449 §6 and the RFCs named).
const (
	CapTop            = "TOP"
	CapUser           = "USER"
	CapSASL           = "SASL" // arguments: the mechanisms (RFC 5034)
	CapRespCodes      = "RESP-CODES"
	CapAuthRespCode   = "AUTH-RESP-CODE" // RFC 3206
	CapLoginDelay     = "LOGIN-DELAY"
	CapPipelining     = "PIPELINING"
	CapExpire         = "EXPIRE"
	CapUIDL           = "UIDL"
	CapImplementation = "IMPLEMENTATION"
	CapSTLS           = "STLS" // RFC 2595
	CapUTF8           = "UTF8" // RFC 6856
)

// Capability is one line of CAPA: a name and its arguments.
type Capability struct {
	Name string
	Args []string
}

// Capabilities is the answer to CAPA, in the order given.
type Capabilities []Capability

// ParseCapability parses one line of CAPA; ok is false for an empty one.
func ParseCapability(line string) (c Capability, ok bool) {
	f := strings.Fields(line)
	if len(f) == 0 {
		return Capability{}, false
	}
	return Capability{Name: f[0], Args: f[1:]}, true
}

// Has reports whether name is there, without regard to case.
func (c Capabilities) Has(name string) bool {
	_, ok := c.Args(name)
	return ok
}

// Args returns the arguments of the capability called name, and whether it is
// there.
func (c Capabilities) Args(name string) ([]string, bool) {
	for _, x := range c {
		if strings.EqualFold(x.Name, name) {
			return x.Args, true
		}
	}
	return nil, false
}

// HasMechanism reports whether SASL mechanism mech is offered (RFC 5034 §6).
func (c Capabilities) HasMechanism(mech string) bool {
	args, _ := c.Args(CapSASL)
	for _, a := range args {
		if strings.EqualFold(a, mech) {
			return true
		}
	}
	return false
}

// String returns the line as CAPA sends it, without its CRLF.
func (c Capability) String() string {
	if len(c.Args) == 0 {
		return c.Name
	}
	return c.Name + " " + strings.Join(c.Args, " ")
}
