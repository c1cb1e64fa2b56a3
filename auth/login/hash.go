package login

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"
)

// ErrHash: a stored hash is not one that can be checked, or asks for more
// memory or time than any reasonable one. It is the operator's to mend, so
// servers answer as if the user database could not be asked.
var ErrHash = errors.New("login: unusable password hash")

// ErrPassword: a password that cannot be set, because it is empty or has
// characters that not every keyboard and protocol brings over (control
// characters, text that is not UTF-8).
var ErrPassword = errors.New("login: unusable password")

// What Hash uses: Argon2id with 19 MiB, two passes and one lane, and what a
// hash may ask for at most when it is checked.
const (
	hashMemory  = 19 * 1024 // KiB
	hashTime    = 2
	hashThreads = 1
	saltSize    = 16
	keySize     = 32

	maxHashMemory  = 256 * 1024 // KiB
	maxHashTime    = 16
	maxHashThreads = 16
	maxSaltSize    = 64
	maxKeySize     = 64
	maxBcryptCost  = 15
)

// Hash returns a hash of password for Record.Hash: Argon2id (RFC 9106) with
// a random salt, in the PHC string format, "$argon2id$v=19$m=…". The password
// is prepared as RFC 8265's OpaqueString first. ErrPassword.
func Hash(password string) (string, error) {
	pw, err := preparePassword(password)
	if err != nil {
		return "", err
	}
	h := &argon{memoryKiB: hashMemory, time: hashTime, threads: hashThreads, salt: make([]byte, saltSize), key: make([]byte, keySize)}
	rand.Read(h.salt) // never fails
	h.key = h.derive(pw)
	return h.String(), nil
}

// Verify reports whether password has the given hash. ErrHash when hash is
// not one that Hash, SCRAM or bcrypt makes. Passwords does this and more: Verify is
// for Authenticators of one's own.
func Verify(hash, password string) (bool, error) {
	h, err := parseHash(hash)
	if err != nil {
		return false, err
	}
	pw, err := preparePassword(password)
	if err != nil {
		return false, nil
	}
	return h.matches(pw), nil
}

// hash is a parsed password hash.
type hash interface {
	matches(password string) bool // in constant time
	memory() int64                // octets that matches needs
}

func parseHash(s string) (hash, error) {
	switch {
	case strings.HasPrefix(s, "$argon2id$"):
		return parseArgon(s)
	case strings.HasPrefix(s, "$2a$"), strings.HasPrefix(s, "$2b$"), strings.HasPrefix(s, "$2y$"):
		cost, err := bcrypt.Cost([]byte(s))
		if err != nil || len(s) != 60 || cost > maxBcryptCost {
			return nil, fmt.Errorf("%w: bcrypt", ErrHash)
		}
		return bcryptHash(s), nil
	case strings.HasPrefix(s, "SCRAM-"):
		return parseSCRAM(s)
	}
	return nil, fmt.Errorf("%w: neither argon2id, bcrypt nor SCRAM", ErrHash)
}

// argon is an Argon2id hash.
type argon struct {
	memoryKiB, time uint32
	threads         uint8
	salt, key       []byte
}

// parseArgon reads $argon2id$v=19$m=M,t=T,p=P$salt$key.
func parseArgon(s string) (*argon, error) {
	bad := func(what string) (*argon, error) { return nil, fmt.Errorf("%w: argon2id: %s", ErrHash, what) }
	if len(s) > 512 {
		return bad("too long")
	}
	f := strings.Split(s, "$")
	if len(f) != 6 {
		return bad("fields")
	}
	if f[2] != "v=19" {
		return bad("version")
	}
	p := strings.Split(f[3], ",")
	if len(p) != 3 {
		return bad("parameters")
	}
	var v [3]uint64
	for i, name := range [3]string{"m=", "t=", "p="} {
		digits, ok := strings.CutPrefix(p[i], name)
		n, err := strconv.ParseUint(digits, 10, 32)
		if !ok || err != nil || n == 0 {
			return bad("parameters")
		}
		v[i] = n
	}
	if v[0] > maxHashMemory || v[1] > maxHashTime || v[2] > maxHashThreads || v[0] < 8*v[2] {
		return bad("parameters out of bounds")
	}
	h := &argon{memoryKiB: uint32(v[0]), time: uint32(v[1]), threads: uint8(v[2])}
	var err error
	if h.salt, err = base64.RawStdEncoding.Strict().DecodeString(f[4]); err != nil || len(h.salt) < 8 || len(h.salt) > maxSaltSize {
		return bad("salt")
	}
	if h.key, err = base64.RawStdEncoding.Strict().DecodeString(f[5]); err != nil || len(h.key) < 16 || len(h.key) > maxKeySize {
		return bad("key")
	}
	return h, nil
}

func (h *argon) String() string {
	return fmt.Sprintf("$argon2id$v=19$m=%d,t=%d,p=%d$%s$%s", h.memoryKiB, h.time, h.threads,
		base64.RawStdEncoding.EncodeToString(h.salt), base64.RawStdEncoding.EncodeToString(h.key))
}

func (h *argon) derive(password string) []byte {
	return argon2.IDKey([]byte(password), h.salt, h.time, h.memoryKiB, h.threads, uint32(len(h.key)))
}

func (h *argon) matches(password string) bool {
	return subtle.ConstantTimeCompare(h.derive(password), h.key) == 1
}

func (h *argon) memory() int64 { return int64(h.memoryKiB) << 10 }

// bcryptHash is a bcrypt hash; of the password, it sees the first 72 octets.
type bcryptHash string

func (h bcryptHash) matches(password string) bool {
	return bcrypt.CompareHashAndPassword([]byte(h), []byte(password)) == nil
}

// memory is nominal: bcrypt needs little, but a core for as long.
func (h bcryptHash) memory() int64 { return 1 << 20 }

// sampleHash keeps the hash that was checked last, to be computed in place of
// the one that an unknown user does not have.
type sampleHash struct{ p atomic.Pointer[hash] }

func (s *sampleHash) store(h hash) { s.p.Store(&h) }

func (s *sampleHash) load() hash {
	if h := s.p.Load(); h != nil {
		return *h
	}
	return &argon{memoryKiB: hashMemory, time: hashTime, threads: hashThreads, salt: make([]byte, saltSize), key: make([]byte, keySize)}
}
