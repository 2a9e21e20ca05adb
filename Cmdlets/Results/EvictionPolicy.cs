namespace FCtrans;

/// <summary>Which of a split VM's pages leave its main host when room is needed. The guest kernel's own pages stay with either.</summary>
public enum EvictionPolicy
{
    /// <summary>Those that came first, but for those that keep coming back or that the guest's own kernel holds for hot.</summary>
    Refault = 0,

    /// <summary>Those that came first.</summary>
    OldestFirst = 1,
}
