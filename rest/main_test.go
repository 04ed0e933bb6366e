package rest_test

import (
	"io"
	"log/slog"
	"os"
	"testing"

	"trustpager/server/servertest"
	"trustpager/storage/storagetest"
)

func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.NewTextHandler(io.Discard, nil)))
	os.Exit(storagetest.Run(m))
}

// each runs test on a server with background work, on both engines.
func each(t *testing.T, test func(t *testing.T, s *servertest.Server)) {
	t.Helper()
	storagetest.EachURL(t, func(t *testing.T, url string) { test(t, servertest.New(t, url, servertest.Options{Work: true})) })
}
