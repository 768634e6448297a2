package api

//go:generate sh -c "cd ../.. && go run ./internal/apigen/cmd/apigen generate"
