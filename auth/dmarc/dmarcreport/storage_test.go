package dmarcreport_test

import (
	"testing"

	"github.com/postrider/postrider/auth/dmarc/dmarcreport"
	"github.com/postrider/postrider/auth/dmarc/dmarcreport/dmarcreporttest"
)

func TestMemory(t *testing.T) {
	dmarcreporttest.Run(t, func(*testing.T) dmarcreport.Storage { return new(dmarcreport.Memory) })
}
