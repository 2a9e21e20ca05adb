namespace FCtrans.Agent.Migration;

/// <summary>
/// What a Control frame says: the first byte of its payload; text for people may follow. The sequence of a migration:
/// <code>
/// source                          main
///   | Located, Discard, Barrier ...  |   each round
///   | TableComplete ---------------->|   VM stands still; every page is where it belongs: the pager may serve
///   | DeviceState ... (last) ------->|   QEMU loads it
///   |<----------------------- Ready  |   marker 'prepared'
///   | (marker 'committed')           |
///   | Commit ----------------------->|   marker 'running', then cont
///   |<--------------------- Running  |
/// </code>
/// Until Commit the source may send Abort instead, and resumes the VM. After Commit it only ever repeats Commit.
/// </summary>
internal enum ControlCode : byte
{
    TableComplete = 1,
    Ready = 2,
    Commit = 3,
    Running = 4,
    Abort = 5,
    Failed = 6,

    /// <summary>To a sub-host: the split is over, its store may go.</summary>
    End = 7,
}
