package interop

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestPostgres runs the suites of pgqueue and pgstore on other versions of
// PostgreSQL than the one that is installed, from npm. By default without the
// cases that take long, with POSTRIDER_PG_VERSIONS=1 all of their tests.
func TestPostgres(t *testing.T) {
	need(t, "npm")
	args := []string{"-short", "-run", "^(TestStorage|TestLaws)$", "-skip", "/BlockedLanes|/PutAndOpen|/Starvation|/no_history|/full/L[4-8]$"}
	if os.Getenv("POSTRIDER_PG_VERSIONS") != "" {
		args = nil
	}
	for _, version := range []string{"14", "16", "17", "18"} {
		t.Run(version, func(t *testing.T) {
			bin, err := filepath.Abs("node/node_modules/pg" + version + "/native/bin")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(filepath.Join(bin, "postgres")); err != nil {
				absent(t, "PostgreSQL "+version+" (npm ci in internal/interop/node)")
			}
			cmd := exec.Command("go", append(append([]string{"test", "-count=1", "-v"}, args...), "./queue/pgqueue", "./store/pgstore")...)
			cmd.Dir = "../.."
			cmd.Env = append(os.Environ(), "POSTRIDER_PG_BIN="+bin, "POSTRIDER_PG_DSN=", "POSTRIDER_REQUIRE=1")
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			t.Logf("PostgreSQL %s: %d tests pass, %d are skipped", version, strings.Count(string(out), "--- PASS"), strings.Count(string(out), "--- SKIP"))
		})
	}
}
