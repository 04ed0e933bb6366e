package server_test

import (
	"log/slog"
	"os"
	"testing"

	"trustpager/storage/storagetest"
)

func TestMain(m *testing.M) {
	slog.SetLogLoggerLevel(slog.LevelError)
	os.Exit(storagetest.Run(m))
}
