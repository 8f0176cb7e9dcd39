/* Bugs that are put into the programs of world.h, so that it can be seen that the simulator finds them: `--plant NAME`
 * of test_sim_protocol. The linker's --wrap puts plant.c between the programs' modules; without a plant it only passes
 * on, and checks that a chunkd obeys no term older than one that it knows.
 *
 *   read    metad answers as long as it believes that it leads, without a lease for that (mlog_may_read)
 *   term    a chunkd obeys orders of any term (terms_order)
 *   twice   what was answered is forgotten when leadership changes: a repeated change is executed again
 *   lease   a metad that begins to lead waits for nobody's claims of leases (service_grace_start)
 *   apply   what a command does depends on the metad (the time is its own). A world with a check_ms is to find it by
 *           CheckOp; the end of a run finds it in any case */
#ifndef REPLFS_TESTS_SIM_PLANT_H
#define REPLFS_TESTS_SIM_PLANT_H
#include <stdbool.h>
#include <stdint.h>

enum plant { PLANT_NONE, PLANT_READ, PLANT_TERM, PLANT_TWICE, PLANT_LEASE, PLANT_APPLY };
bool plant_choose(const char *name); /* also "none"; false: there is none of that name */
enum plant plant_chosen(void);
uint64_t plant_orders(void); /* that chunkds obeyed */
uint64_t plant_old(void);    /* that came in a term that was over, and were refused */
#endif
