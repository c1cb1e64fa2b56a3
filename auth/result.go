package auth

// Result is the outcome of one authentication method, in the words of
// RFC 8601 §2.7. A method uses only some of them.
type Result string

// The results.
const (
	None      Result = "none"      // nothing to check
	Neutral   Result = "neutral"   // checked, and it says nothing
	Pass      Result = "pass"      // authorised, or unchanged
	Fail      Result = "fail"      // not authorised, or changed
	SoftFail  Result = "softfail"  // SPF: probably not authorised
	Policy    Result = "policy"    // would pass, but local policy refuses to count it
	TempError Result = "temperror" // could not be checked now; a later try may succeed
	PermError Result = "permerror" // can never be checked, for instance a broken record
)
