package dmarcreporttest_test

import (
	"testing"

	"github.com/postrider/postrider/auth/dmarc/dmarcreport"
	"github.com/postrider/postrider/auth/dmarc/dmarcreport/dmarcreporttest"
)

func ExampleRun() {
	_ = func(t *testing.T) { // TestStorage
		dmarcreporttest.Run(t, func(t *testing.T) dmarcreport.Storage { return new(dmarcreport.Memory) })
	}
}
