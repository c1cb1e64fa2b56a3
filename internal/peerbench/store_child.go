package main

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"runtime"
	"runtime/pprof"
	"strings"
	"syscall"

	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/smtp/smtpserver"
	"github.com/postrider/postrider/store"
	"github.com/postrider/postrider/store/delivery"
	"github.com/postrider/postrider/store/diskstore"
)

// storeUsers is how many mailboxes the LMTP servers deliver to: one a session.
const storeUsers = 200

// lmtpProfile, in the environment, is where our LMTP server writes a CPU
// profile to.
const lmtpProfile = "PEERBENCH_LMTP_PROFILE"

// lmtpChild is an LMTP server in front of a diskstore: "DIR". The users are u0
// and so on.
func lmtpChild(args []string) error {
	if name := os.Getenv(lmtpProfile); name != "" {
		f, err := os.Create(name)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	ctx := context.Background()
	quiet := slog.New(slog.DiscardHandler)
	mail, err := diskstore.Open(args[0], nil)
	if err != nil {
		return err
	}
	defer mail.Close()
	for i := range storeUsers {
		if err := mail.CreateAccount(ctx, fmt.Sprint("u", i)); err != nil {
			return err
		}
	}
	backend := &delivery.Backend{Target: delivery.To(mail), Log: quiet, Recipients: func(_ context.Context, to smtp.Address) ([]store.Target, error) {
		return []store.Target{{Account: to.Local}}, nil
	}}
	srv := &smtpserver.Server{Backend: backend, Hostname: "bench.test", LMTP: true, MaxConnections: -1, MaxConnectionsPerIP: -1, MaxCommands: -1, Log: quiet}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	go srv.Serve(l)
	defer srv.Close()
	fmt.Println(l.Addr())
	for sc := bufio.NewScanner(os.Stdin); sc.Scan(); {
		var ru syscall.Rusage
		syscall.Getrusage(syscall.RUSAGE_SELF, &ru)
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		fmt.Println(ru.Utime.Nano()+ru.Stime.Nano(), m.Mallocs, statusKB("VmRSS:")<<10, statusKB("VmHWM:")<<10)
	}
	return nil
}

// dovecotConf is a Dovecot that takes mail by LMTP for anyone, with the
// settings that Debian delivers but for names, ports and the log.
func dovecotConf(dir, port string) string {
	return strings.NewReplacer("DIR", dir, "PORT", port).Replace(`protocols = lmtp
base_dir = DIR/run
state_dir = DIR/state
log_path = DIR/log
info_log_path = /dev/null
ssl = no
mail_location = sdbox:DIR/mail/%u
mail_uid = dovecot
mail_gid = dovecot
first_valid_uid = 0
first_valid_gid = 0
userdb {
  driver = static
  args = uid=dovecot gid=dovecot home=DIR/mail/%u allow_all_users=yes
}
passdb {
  driver = static
  args = nopassword=y
}
default_client_limit = 2000
default_process_limit = 250
service lmtp {
  process_limit = 250
  inet_listener lmtp {
    address = 127.0.0.1
    port = PORT
  }
}
service anvil {
  client_limit = 2000
}
service stats {
  client_limit = 2000
}
`)
}
