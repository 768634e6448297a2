package client

import "encoding/xml"

func parseXMLError(body []byte) (code, message string) {
	var e struct {
		Error struct {
			Code    string
			Message string
		}
		Code    string // S3 has no envelope
		Message string
	}
	if xml.Unmarshal(body, &e) != nil {
		return "", ""
	}
	if e.Error.Code == "" {
		return e.Code, e.Message
	}
	return e.Error.Code, e.Error.Message
}
