package pgqueue

import (
	"context"
	_ "embed"

	"github.com/postrider/postrider/internal/pgschema"
)

//go:embed schema.sql
var schema string

//go:embed schema_blobs.sql
var schemaBlobs string

// ErrVersion says that the tables were made by a newer version of this
// package.
var ErrVersion = pgschema.ErrVersion

// tables are those of schema.sql and what follows it. Whoever changes them
// adds a step.
func tables(name string) pgschema.Tables {
	return pgschema.Tables{Package: "pgqueue", Schema: name, Meta: "queue_meta", Steps: []string{schema, schemaBlobs}}
}

// migrate brings the tables up to date.
func (s *Storage) migrate(ctx context.Context) (err error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	s.data, err = s.tables.Migrate(ctx, s.pool)
	return err
}
