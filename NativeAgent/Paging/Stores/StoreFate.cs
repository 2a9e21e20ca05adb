namespace FCtrans.Agent.Paging;

/// <summary>What is to become of a sub-host's store.</summary>
internal enum StoreFate
{
    /// <summary>It takes and gives pages.</summary>
    Serves = 0,

    /// <summary>It gives pages and takes no more: what it has goes to others, see <see cref="Evacuation"/>.</summary>
    Leaves = 1,

    /// <summary>It is not there any more, and never will be: what only it had is lost.</summary>
    Gone = 2,
}
