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

    /// <summary>
    /// Before TableComplete: some pages stay at the source, which listens for the main host at this port; text: the port.
    /// Located frames with the index after the last sub-host's name them.
    /// </summary>
    LeftAtSource = 8,

    /// <summary>To a sub-host: the split is over, its store may go. To the source, which stays as a store: nothing is needed of it any more.</summary>
    End = 7,
}
