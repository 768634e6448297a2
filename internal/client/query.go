package client

import "encoding/xml"

func parseXMLError(body []byte) (code, message string) {
	var e struct {
		Error struct {
			Code    string
			Message string
		}
	}
	if xml.Unmarshal(body, &e) != nil {
		return "", ""
	}
	return e.Error.Code, e.Error.Message
}
