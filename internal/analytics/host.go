package analytics

import (
	"context"

	"github.com/millrace/millrace/internal/analytics/app"
)

// Host runs applications. Calls about one application come one after another,
// calls about different ones may run concurrently.
type Host interface {
	// Start begins a run, or goes on with it if the host knows the application's
	// run number: after a start of the server it is told of all that run. It
	// returns when the application is set up, not when its sources are there: a
	// missing stream, object or role is for the application's log and no error. An
	// application that runs already is replaced.
	Start(ctx context.Context, a *app.Application) error
	// Update goes on with another version of an application that runs. State of
	// what has not changed is kept.
	Update(ctx context.Context, a *app.Application) error
	// Hold ends a run as Stop does, of an application that should run and whose
	// definition cannot be run: a program that has lost a table. The reason is for
	// its log and its status. Start and Update take its place.
	Hold(ctx context.Context, a *app.Application, reason error) error
	// Stop ends a run and keeps where it was. What does not run is no error.
	Stop(ctx context.Context, id string) error
	// Remove ends a run, if there is one, and forgets everything about the
	// application. What is not there is no error.
	Remove(ctx context.Context, id string) error
	// Status is how an application does; the zero value for one that does not run.
	Status(id string) app.Status
}
