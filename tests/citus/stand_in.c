/*
 * Stands in for Citus's library: offers the two functions that pg_stock asks, and answers as a session tells it to.
 * Compiled with -DSILENT it offers none.
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"

PG_MODULE_MAGIC;

PGDLLEXPORT void _PG_init(void);

static char *table = NULL;
static bool coordinated = false;

void
_PG_init(void)
{
	DefineCustomStringVariable("stand_in.distributed", "The table that is distributed.", NULL,
							   &table, "", PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomBoolVariable("stand_in.coordinated", "Whether transactions are coordinated.", NULL,
							 &coordinated, false, PGC_USERSET, 0, NULL, NULL, NULL);
}

#ifndef SILENT
PGDLLEXPORT bool IsCitusTable(Oid relation);
PGDLLEXPORT bool InCoordinatedTransaction(void);

bool
IsCitusTable(Oid relation)
{
	char *name = get_rel_name(relation);

	return name != NULL && strcmp(name, table) == 0;
}

bool
InCoordinatedTransaction(void)
{
	return coordinated;
}
#endif
