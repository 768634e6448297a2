package objects

import (
	"context"
	"errors"
	"strings"
)

// families are the codes that have a place of their own in the error logs of
// delivery streams. Every other is an InternalError.
var families = map[string]string{
	"AccessDenied": "S3.AccessDenied", "AllAccessDisabled": "S3.AllAccessDisabled", "AccountProblem": "S3.AccountProblem",
	"InvalidAccessKeyId": "S3.AccessDenied", "SignatureDoesNotMatch": "S3.AccessDenied",
	"NoSuchBucket": "S3.NoSuchBucket", "MethodNotAllowed": "S3.MethodNotAllowed",
	"SlowDown": "S3.SlowDown", "ServiceUnavailable": "S3.SlowDown", "RequestLimitExceeded": "S3.SlowDown", "Throttling": "S3.SlowDown",
	"InvalidToken": "S3.InvalidToken", "ExpiredToken": "S3.InvalidToken", "NotSignedUp": "S3.NotSignedUp", "InvalidPayer": "S3.InvalidPayer",
	"SubscriptionRequired": "S3.SubscriptionRequired", "SubscriptionRequiredException": "S3.SubscriptionRequired",
	"IllegalLocationConstraintException": "S3.IllegalLocationConstraintException",
	"KMS.NotFoundException":              "S3.KMS.NotFoundException", "KMS.RequestLimitExceeded": "S3.KMS.RequestLimitExceeded", "KMS.ThrottlingException": "S3.KMS.RequestLimitExceeded",
	"KMS.DisabledException": "KMS.DisabledException", "KMS.KeyDisabled": "S3.KMS.KeyDisabled", "KMS.InvalidStateException": "KMS.InvalidStateException", "KMS.KMSInvalidStateException": "KMS.InvalidStateException",
	"KMSKeyNotConfigured": "S3.KMS.KeyNotConfigured", "KMS.KeyNotConfigured": "S3.KMS.KeyNotConfigured", "AsymmetricCMKNotSupported": "S3.KMS.AsymmetricCMKNotSupported",
}

// Family is the code under which the error logs of delivery streams know a
// failure of a store: "S3.AccessDenied" and the like, or "InternalError".
func Family(err error) string {
	e, ok := errors.AsType[*Error](err)
	if !ok {
		if errors.Is(err, context.DeadlineExceeded) {
			return "S3.SlowDown"
		}
		return CodeInternal
	}
	code := strings.TrimPrefix(e.Code, "S3.")
	if f, ok := families[code]; ok {
		return f
	}
	if strings.HasPrefix(code, "KMS.") {
		return "S3." + code
	}
	return CodeInternal
}
