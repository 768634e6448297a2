package awsjson

import "github.com/millrace/millrace/internal/api"

func scan(body []byte, v api.Shape) (done bool, err error)      { return false, nil }
func appendHot(dst []byte, v api.Shape) (out []byte, done bool) { return nil, false }
